"""What works, and what is reported missing, for roles that are no superuser (issue 2, C)."""

import psycopg
import pytest
from psycopg import sql
from structlog.testing import capture_logs

from heliograph.config import Settings
from heliograph.errors import ConfigurationError
from heliograph.postgres.bootstrap import prepare_database
from heliograph.postgres.judge_login import ensure_judge_login
from heliograph.postgres.migrate import StepState, migrate, plan
from heliograph.postgres.publication import PublishOptions, publish_table

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

TRIGGERS = "event triggers that tell the server in commit order"
BYPASS = "service_role passes row level security"
EMIT = "only the server may emit messages into the WAL"


async def give_database(connection, owner, attributes=""):
    """Make a login role and give it the connected database, as a host does for a tenant."""
    await connection.execute(
        sql.SQL("create role {} login ").format(sql.Identifier(owner)) + sql.SQL(attributes)
    )
    await connection.execute(
        sql.SQL("alter database {} owner to {}").format(
            sql.Identifier(connection.info.dbname), sql.Identifier(owner)
        )
    )


def missing_titles(report):
    return sorted(
        next(
            known
            for known in (TRIGGERS, BYPASS, EMIT, "reading changes", missing.what)
            if missing.what.startswith(known)
        )
        for missing in report.missing
    )


async def test_an_owner_with_createrole_and_replication_lacks_only_what_needs_a_superuser(
    rolefree_url, connect, other_user
):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "owner", "createrole replication")
    async with connect(other_user(rolefree_url, "owner")) as connection:
        report = await migrate(connection)
        assert report.is_usable
        assert missing_titles(report) == sorted([BYPASS, EMIT, TRIGGERS])
        assert all(missing.lost and missing.remedy for missing in report.missing)
        # and the rest works: memberships, judging logins (a second one for service_role), publish
        logins = await ensure_judge_login(
            connection, "one", ("anon", "authenticated", "service_role")
        )
        assert logins.service is not None
        await connection.execute("create table orders (id int primary key)")
        published = await publish_table(connection, PublishOptions("orders", jitter=lambda: 0.0))
        assert published.table == "public.orders"
        cursor = await connection.execute(
            "select has_table_privilege('anon', 'orders', 'SELECT'),"
            " pg_has_role('authenticator', 'service_role', 'MEMBER')"
        )
        assert await cursor.fetchone() == (True, True)
    async with connect(logins.service.conninfo) as judge:
        await judge.execute("set role service_role")


async def test_a_later_run_as_superuser_adds_what_was_missing(rolefree_url, connect, other_user):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "owner", "createrole replication")
        async with connect(other_user(rolefree_url, "owner")) as connection:
            await migrate(connection)
        report = await migrate(admin)
        assert report.missing == ()
        assert report.applied == (
            "0004_service_role_bypassrls",
            "0012_rights_messages",
            "0013_emit_message_privilege",
        )
        async with connect(other_user(rolefree_url, "owner")) as connection:
            # The owner still works, may emit messages and read its secret; others may not emit.
            assert (await migrate(connection)).missing == ()
            await connection.execute("select pg_logical_emit_message(true, 'x', 'y')")
            await connection.execute("select secret from heliograph.server_secret")
            await connection.execute("create table t (id int primary key)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await admin.execute(
                "set role authenticated; select pg_logical_emit_message(true, 'x', 'y')"
            )


async def test_createrole_with_bypassrls_may_give_it_from_postgres_16_on(
    rolefree_url, rolefree_cluster, connect, other_user
):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "owner", "createrole replication bypassrls")
    async with connect(other_user(rolefree_url, "owner")) as connection:
        report = await migrate(connection)
    lacking = [EMIT, TRIGGERS] if rolefree_cluster.major >= 16 else [BYPASS, EMIT, TRIGGERS]
    assert missing_titles(report) == sorted(lacking)


async def test_a_plain_owner_works_with_roles_that_exist(rolefree_url, connect, other_user):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "owner")
        await admin.execute(
            "create role anon; create role authenticated; create role service_role bypassrls;"
            "create role authenticator login noinherit;"
            "grant anon, authenticated, service_role to authenticator"
        )
    async with connect(other_user(rolefree_url, "owner")) as connection:
        report = await migrate(connection)
        assert report.is_usable
        assert missing_titles(report) == sorted([EMIT, "reading changes", TRIGGERS])
        with pytest.raises(ConfigurationError, match="GRANT anon, authenticated"):
            await ensure_judge_login(connection, "one", ("anon", "authenticated", "service_role"))
        await connection.execute("create table orders (id int primary key)")
        await publish_table(connection, PublishOptions("orders", jitter=lambda: 0.0))


async def test_a_plain_owner_without_roles_is_told_what_to_run(rolefree_url, connect, other_user):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "owner")
    async with connect(other_user(rolefree_url, "owner")) as connection:
        report = await migrate(connection)
        assert not report.is_usable
        (roles,) = [missing for missing in report.missing if missing.what.startswith("roles")]
        assert "CREATE ROLE anon" in roles.remedy
        assert "owner has no CREATEROLE" in roles.reason
        async with connect(rolefree_url) as admin:
            await admin.execute(roles.remedy.encode())
        assert (await migrate(connection)).is_usable


async def test_a_role_that_may_not_create_anything_changes_nothing(
    rolefree_url, connect, other_user
):
    async with connect(rolefree_url) as admin:
        await admin.execute("create role stranger login")
    async with connect(other_user(rolefree_url, "stranger")) as connection:
        report = await migrate(connection)
        assert report.applied == ()
        assert not report.is_usable
        planned = await plan(connection)
        assert {step.state for step in planned.steps} == {StepState.BLOCKED}


async def test_who_lacks_createrole_only_is_told_to_make_the_roles(
    rolefree_url, connect, other_user
):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "maker", "replication")
    async with connect(other_user(rolefree_url, "maker")) as connection:
        planned = await plan(connection)
        essential = {missing.remedy for missing in planned.missing if missing.is_essential}
        assert len(essential) == 1
        assert next(iter(essential)).startswith("CREATE ROLE anon")


async def test_another_login_is_told_who_may_look(rolefree_url, connect, other_user):
    async with connect(rolefree_url) as admin:
        await migrate(admin)
        await admin.execute("create role stranger login")
    async with connect(other_user(rolefree_url, "stranger")) as connection:
        with pytest.raises(ConfigurationError, match="stranger may not read schema heliograph"):
            await plan(connection)
        with pytest.raises(ConfigurationError, match="the login that ran `heliograph migrate`"):
            await migrate(connection)


async def test_what_was_granted_by_hand_is_used_and_not_called_missing(
    rolefree_url, connect, other_user
):
    async with connect(rolefree_url) as admin:
        await give_database(admin, "owner", "createrole replication")
        url = other_user(rolefree_url, "owner")
        async with connect(url) as connection:
            before = await migrate(connection)
        settings = Settings.from_environ(
            {"DATABASE_URL": url, "HELIOGRAPH_JWT_SECRET": "a secret of at least 32 bytes, truly"}
        )
        prepared = await prepare_database(settings, may_migrate=False)
        assert set(prepared.other_judges) == {"service_role"}
        (remedy,) = [m.remedy for m in before.missing if m.what.startswith(BYPASS)]
        await admin.execute(remedy.partition(";")[0].encode())
    with capture_logs() as lines:
        prepared = await prepare_database(settings, may_migrate=False)
    assert prepared.other_judges == {}
    assert prepared.stand_ins == {"service_role": "authenticated"}
    assert [line for line in lines if line["event"] == "migration_pending"] == []
