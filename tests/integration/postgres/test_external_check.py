"""Checking real databases: the good one passes, each flaw is found with what to run."""

from urllib.parse import urlsplit

import psycopg
import pytest

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.transaction_pooler import transaction_pooler
from heliograph.config import Secret, Settings
from heliograph.errors import ConfigurationError, UnavailableError
from heliograph.postgres.cluster import free_port
from heliograph.postgres.connecting import connect
from heliograph.postgres.database_facts import gather_database_facts
from heliograph.postgres.external_check import Severity, check_database, require_usable

pytestmark = pytest.mark.postgres

BOUNDED_WAL = "alter system set max_slot_wal_keep_size = '1GB'"


def settings_for(url: str, **more: str) -> Settings:
    return Settings.from_environ({"DATABASE_URL": url, **more})


async def problems_of(settings: Settings) -> list[tuple[str, str]]:
    findings = await check_database(settings)
    return [(finding.severity, finding.describe()) for finding in findings]


@pytest.fixture(scope="module")
def small_cluster():
    """A server as hosts deliver it: no logical decoding, and its only slot is taken."""
    settings = {"wal_level": "replica", "max_replication_slots": "1"}
    with run_test_cluster(binaries_of(18), settings) as cluster:
        with psycopg.connect(cluster.url(), autocommit=True) as connection:
            connection.execute("select pg_create_physical_replication_slot('of_a_standby')")
        yield cluster


@pytest.mark.security
@pytest.mark.asyncio
@pytest.mark.parametrize("cluster_name", ["postgres_cluster", "postgres_cluster_15"])
async def test_a_good_database_is_only_warned_about_unbounded_wal(
    request, make_database, cluster_name
):
    url = make_database(request.getfixturevalue(cluster_name))
    ((severity, text),) = await problems_of(settings_for(url))
    assert severity is Severity.WARNING
    assert "max_slot_wal_keep_size" in text


@pytest.mark.asyncio
async def test_a_server_without_logical_decoding_and_free_slot_is_refused(small_cluster):
    findings = await check_database(settings_for(small_cluster.url()))
    with pytest.raises(ConfigurationError) as raised:
        require_usable(findings)
    shown = str(raised.value)
    assert "ALTER SYSTEM SET wal_level = 'logical'" in shown
    assert "1 of 1 are used" in shown
    assert "max_replication_slots = 6" in shown


@pytest.mark.asyncio
async def test_a_login_without_the_replication_right_is_refused(postgres_url, postgres_cluster):
    role = f"plain_{urlsplit(postgres_url).path[1:]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'create role "{role}" login')
    url = postgres_cluster.url(urlsplit(postgres_url).path[1:], role)
    try:
        problems = await problems_of(settings_for(url))
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f'drop role "{role}"')
    ((severity, text), *_) = problems
    assert severity is Severity.FATAL
    assert f'ALTER ROLE "{role}" REPLICATION' in text


@pytest.mark.asyncio
async def test_a_slot_of_another_database_is_not_taken(
    postgres_url, postgres_cluster, make_database
):
    other = make_database(postgres_cluster)
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot('of_other', 'pgoutput')")
    problems = await problems_of(settings_for(postgres_url, HELIOGRAPH_SLOT="of_other"))
    ((severity, text), *_) = problems
    assert severity is Severity.FATAL
    assert f"database {urlsplit(other).path[1:]}" in text


@pytest.mark.asyncio
async def test_a_replication_url_to_another_server_is_refused(postgres_url, postgres_cluster_15):
    more = {"HELIOGRAPH_REPLICATION_URL": postgres_cluster_15.url()}
    ((severity, text), *_) = await problems_of(settings_for(postgres_url, **more))
    assert severity is Severity.FATAL
    assert "another server" in text


@pytest.mark.asyncio
async def test_a_pooler_in_transaction_mode_is_found(postgres_url):
    async with transaction_pooler(postgres_url) as pooled:
        problems = await problems_of(settings_for(pooled))
        shown = "\n".join(text for _, text in problems)
        assert problems[0][0] is Severity.FATAL
        assert "pooler in transaction mode" in shown
        assert "unsupported startup parameter: replication" in shown


@pytest.mark.asyncio
async def test_a_direct_connection_is_not_taken_for_a_pooler(postgres_url):
    facts = await gather_database_facts(Secret(postgres_url), slot_name="heliograph")
    assert facts.has_session


@pytest.mark.asyncio
async def test_a_server_that_does_not_answer_is_unavailable_not_misconfigured():
    url = f"postgresql://owner:planted@127.0.0.1:{free_port()}/shop"
    with pytest.raises(UnavailableError, match="DATABASE_URL: connection to server") as raised:
        await check_database(settings_for(url))
    assert "planted" not in str(raised.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("part", ["user", "database"])
async def test_a_refused_login_or_database_is_named(postgres_cluster, part):
    url = postgres_cluster.url(**{part: "nobody_of_that_name"})
    with pytest.raises(ConfigurationError, match="nobody_of_that_name"):
        await check_database(settings_for(url))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:planted@127.0.0.1/db?planted_option=1",
        "postgresql://u:planted@127.0.0.1:99999/db",
    ],
)
async def test_a_url_that_libpq_refuses_is_not_repeated(url):
    with pytest.raises(ConfigurationError, match="DATABASE_URL: libpq") as raised:
        await connect(Secret(url), variable="DATABASE_URL")
    assert "planted" not in str(raised.value)
