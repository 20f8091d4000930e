"""`heliograph doctor` from the outside: a healthy set-up, broken ones, and their pages."""

import asyncio
import contextlib
import functools
import http.server
import json
import threading
import time

import psycopg
import pytest
import websockets

from fixtures.doctor import assert_on_its_page, run_doctor, run_plain
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.serve_process import environment, serving
from fixtures.server import JWT_SECRET
from fixtures.transaction_pooler import transaction_pooler
from heliograph.config import Settings
from heliograph.core.tokens.minting import mint_legacy_key, mint_token
from heliograph.postgres.cluster import free_port
from heliograph.postgres.judge_login import ensure_judge_login
from heliograph.postgres.migrate import migrate
from heliograph.postgres.publication import PublishOptions, publish_table

pytestmark = pytest.mark.postgres

ANON_KEY = mint_legacy_key(JWT_SECRET, "anon")
SERVICE_KEY = mint_legacy_key(JWT_SECRET, "service_role")

ORDERS = (
    "create table orders (id int primary key, owner uuid, note text)",
    "alter table orders enable row level security",
    "create policy own on orders for select to authenticated using (owner = (select auth.uid()))",
    "insert into orders select n, gen_random_uuid(), 'note' from generate_series(0, 49) n",
)


async def _prepare(url, tables=("orders",)):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await migrate(connection)
        for statement in ORDERS:
            await connection.execute(statement)
        for table in tables:
            await publish_table(connection, PublishOptions(table, jitter=lambda: 0.0))
        password = Settings.from_environ({"HELIOGRAPH_JWT_SECRET": JWT_SECRET}).judge_password
        assert password is not None
        roles = ("anon", "authenticated", "service_role")
        await ensure_judge_login(connection, password.reveal(), roles)


def prepare(url, *statements):
    asyncio.run(_prepare(url))
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def settings_of(url, **more):
    return environment(url, HELIOGRAPH_PORT=str(free_port()), **more)


def policy(expression):
    return (
        "drop policy own on orders",
        f"create policy own on orders for select to authenticated using ({expression})",
    )


#: What is done to a healthy database, and the check that must tell it.
BROKEN_DATABASES = {
    "publication-missing": (("drop publication supabase_realtime",), "publication", "fail"),
    "publication-empty": (
        ("alter publication supabase_realtime drop table orders",),
        "publication",
        "warn",
    ),
    "credentials-published": (
        ("alter publication supabase_realtime add table auth.users",),
        "table-scope",
        "fail",
    ),
    "no-key": (
        ("alter table orders drop constraint orders_pkey",),
        "table-key",
        "fail",
    ),
    "not-full": (("alter table orders replica identity default",), "table-identity", "warn"),
    "no-identity": (("alter table orders replica identity nothing",), "table-identity", "fail"),
    "partitions": (
        (
            "create table parts (id int primary key) partition by range (id)",
            "create table parts_1 partition of parts for values from (0) to (9)",
            "alter publication supabase_realtime set (publish_via_partition_root = false)",
            "alter publication supabase_realtime add table parts_1",
        ),
        "table-storage",
        "fail",
    ),
    "row-filter": (
        ("alter publication supabase_realtime set table orders where (id > 0)",),
        "table-row-filter",
        "warn",
    ),
    "no-row-security": (
        ("alter table orders disable row level security",),
        "table-row-security",
        "warn",
    ),
    "no-grants": (
        ("revoke all on orders from anon, authenticated",),
        "table-grants",
        "warn",
    ),
    "no-policy": (("drop policy own on orders",), "policies-missing", "warn"),
    "raising-policy": (policy("1 / id > 0"), "policy-errors", "fail"),
    "unusable-policy": (
        (
            "create function look() returns boolean language sql stable as 'select true'",
            *policy("look()"),
            "revoke all on function look() from public, anon, authenticated",
        ),
        "policy-errors",
        "fail",
    ),
    "slow-policy": (policy("pg_sleep(0.01) is not null"), "policy-speed", "warn"),
    "endless-policy": (policy("pg_sleep(0.1) is not null"), "policy-speed", "fail"),
    "not-migrated": (
        ("delete from heliograph.migrations where version = 9",),
        "migrations",
        "fail",
    ),
}


@pytest.mark.parametrize("case", BROKEN_DATABASES)
def test_what_is_broken_in_a_database_is_told_as_its_page_shows(postgres_url, case):
    statements, name, status = BROKEN_DATABASES[case]
    prepare(postgres_url, *statements)
    report = run_doctor(settings_of(postgres_url))
    found = report.worst(name)
    assert found["status"] == status
    assert report.troubles == ({name} if status == "fail" else set())
    assert_on_its_page(found)


def test_a_healthy_set_up_has_no_failures_and_leaks_are_seen(postgres_url, tmp_path):
    prepare(postgres_url)
    with serving(postgres_url, tmp_path, HELIOGRAPH_CHANNELS_PER_SOCKET_MAX="30") as served:
        variables = environment(postgres_url, HELIOGRAPH_STATE_DIR=str(tmp_path / "state"))
        report = run_doctor(variables, "--url", served.url, "--token", ANON_KEY)
        assert report.code == 0
        assert report.troubles == set()
        warned = {check["name"] for check in report.checks if check["status"] == "warn"}
        assert warned <= {"slot-wal-limit"}
        assert report.statuses("token") == {"ok"}
        assert report.statuses("slot") == {"ok"}
        assert report.statuses("policy-errors") == {"ok"}
        assert report.statuses("clock-server") == {"ok"}
        assert_on_its_page(report.worst("event-ordering"))
        code, text = run_plain(variables, "--url", served.url)
        assert code == 0
        assert "ok    server-ready: ready: database, reader, server" in text
        for leaky in asyncio.run(_leak(served, lambda: run_doctor(variables, "--url", served.url))):
            assert leaky.code == 0
            assert leaky.worst("server-channels")["status"] == "warn"
            assert_on_its_page(leaky.worst("server-channels"))
        wrong = run_doctor({**variables, "HELIOGRAPH_SLOT": "another"}, "--url", served.url)
        assert wrong.troubles == {"slot"}
        assert_on_its_page(wrong.worst("slot"))
        unseen = run_doctor(settings_of(postgres_url))
        assert unseen.statuses("slot") == {"warn"}
        # The main process of the reader is not named on the page: it differs from run to run.
        assert "another process has it" in unseen.worst("slot")["problem"]


async def _leak(served, look):
    """Join until no more channels are allowed; look before and after the first refusal."""
    async with websockets.connect(served.websocket_url + ANON_KEY) as socket:
        reports = []
        for number in range(31):
            if number == 30:
                reports.append(await asyncio.to_thread(look))
            join = [str(number), "1", f"realtime:room-{number}", "phx_join", {"config": {}}]
            await socket.send(json.dumps(join))
            status = json.loads(await socket.recv())[4]["status"]
            assert status == ("ok" if number < 30 else "error")
        return [*reports, await asyncio.to_thread(look)]


def test_missing_misspelt_and_malformed_variables_are_told_and_the_rest_goes_on(postgres_url):
    prepare(postgres_url)
    variables = settings_of(postgres_url, HELIOGRAPH_ORIGINS="https://app.example")
    del variables["HELIOGRAPH_ALLOWED_ORIGINS"]
    variables["HELIOGRAPH_MESSAGE_BYTES_MAX"] = "many"
    report = run_doctor(variables)
    assert report.code == 1
    assert report.troubles == {"environment-missing", "environment-malformed"}
    assert report.statuses("environment-unknown") == {"warn"}
    for name in ("environment-missing", "environment-malformed", "environment-unknown"):
        assert_on_its_page(report.worst(name))
    assert report.statuses("policy-errors") == {"ok"}


def test_without_any_variable_there_is_still_a_report():
    report = run_doctor({"PATH": "", "HELIOGRAPH_PORT": str(free_port())})
    assert report.troubles == {"environment-missing"}
    assert report.statuses("database-reach") == {"skip"}
    assert len(report.statuses("server-port")) == 1


def test_keys_that_are_mixed_up_foreign_or_expired_are_told(postgres_url):
    prepare(postgres_url)
    mixed = run_doctor(settings_of(postgres_url, SUPABASE_ANON_KEY=SERVICE_KEY))
    assert mixed.troubles == {"api-keys"}
    assert_on_its_page(mixed.worst("api-keys"))
    foreign_key = mint_legacy_key("another secret, which is long enough for it", "anon")
    foreign = run_doctor(settings_of(postgres_url, SUPABASE_ANON_KEY=foreign_key))
    assert_on_its_page(foreign.worst("api-keys"))
    expired_key = mint_token(JWT_SECRET, {"role": "anon"}, now_s=1_700_000_000, ttl_s=9)
    expired = run_doctor(settings_of(postgres_url, SUPABASE_ANON_KEY=expired_key))
    assert_on_its_page(expired.worst("api-keys"))
    dead = run_doctor(settings_of(postgres_url, HELIOGRAPH_JWKS_URL="http://127.0.0.1:1/keys"))
    assert dead.troubles == {"key-set"}
    assert_on_its_page(dead.worst("key-set"))


def test_a_token_is_refused_with_its_reason(postgres_url):
    prepare(postgres_url)
    variables = settings_of(postgres_url, HELIOGRAPH_ROLES="anon,authenticated,editor")
    now_s = time.time()

    def token(*, secret=JWT_SECRET, at_s=now_s, **claims):
        return mint_token(secret, {"role": "authenticated", **claims}, now_s=at_s, ttl_s=60)

    for text, expected in (
        ("Bearer " + token(), "Bearer"),
        (token(secret="another secret, which is long enough for it"), "another secret"),
        (token(at_s=now_s - 600), "it has expired"),
        (token(nbf=now_s + 600), "it is not valid before"),
        (token(role=""), "`role` is missing"),
        (token(role="owner"), "none of HELIOGRAPH_ROLES"),
        (token(role="editor"), "the database has no role editor"),
    ):
        found = run_doctor(variables, "--token", text).worst("token")
        assert found["status"] == "fail"
        assert expected in found["problem"]
        assert_on_its_page(found)


def test_a_token_can_come_over_standard_input():
    report = run_doctor(settings_of(None), "--token", "-", given=f"{ANON_KEY}\n")
    assert report.statuses("token") == {"ok"}


@pytest.mark.parametrize("major", [15, 16])
def test_older_servers_are_told_the_same(request, make_database, major):
    url = make_database(request.getfixturevalue(f"postgres_cluster_{major}"))
    prepare(url, *policy("1 / id > 0"))
    report = run_doctor(settings_of(url))
    assert report.troubles == {"policy-errors"}


def test_a_plain_owner_is_told_what_is_missing_and_no_more(plain_url):
    prepare(plain_url)
    report = run_doctor(settings_of(plain_url))
    assert report.troubles == set()
    assert report.statuses("policy-errors") == {"ok"}
    assert "warn" in report.statuses("migrations")


def test_policies_are_tried_as_the_bearer_of_the_given_token(postgres_url):
    prepare(postgres_url, *policy("(auth.jwt() ->> 'branch')::int = 1"))
    odd = mint_token(
        JWT_SECRET, {"role": "authenticated", "branch": "x"}, now_s=time.time(), ttl_s=60
    )
    assert run_doctor(settings_of(postgres_url)).troubles == set()
    report = run_doctor(settings_of(postgres_url), "--token", odd)
    assert report.troubles == {"policy-errors"}
    assert "as the given token" in report.worst("policy-errors")["problem"]


def test_an_origin_is_told_with_what_to_set(postgres_url):
    variables = settings_of(None)
    report = run_doctor(variables, "--origin", "https://shop.example/cart")
    found = report.worst("origin")
    assert found["status"] == "fail"
    assert_on_its_page(found)
    assert run_doctor(variables, "--origin", "https://app.example").statuses("origin") == {"ok"}
    star = run_doctor({**variables, "HELIOGRAPH_ALLOWED_ORIGINS": "*"})
    assert_on_its_page(star.worst("allowed-origins"))
    empty = run_doctor({**variables, "HELIOGRAPH_ALLOWED_ORIGINS": ""})
    assert_on_its_page(empty.worst("allowed-origins"))


def test_where_a_restarted_server_learns_how_far_it_had_read(postgres_url, tmp_path):
    prepare(postgres_url)
    unset = run_doctor(settings_of(postgres_url))
    assert_on_its_page(unset.worst("state-folder"))
    folder = tmp_path / "state"
    variables = settings_of(postgres_url, HELIOGRAPH_STATE_DIR=str(folder))

    def judged(status, more=variables):
        found = run_doctor(more).worst("state-folder")
        found = {**found, "detail": found["detail"].replace(str(folder), "/var/lib/heliograph")}
        assert found["status"] == status
        assert_on_its_page(found)

    judged("warn")
    with serving(postgres_url, tmp_path, HELIOGRAPH_STATE_DIR=str(folder)):
        judged("ok")
    judged("ok")
    (continuity,) = folder.glob("*.continuity")
    continuity.write_text("something else")
    judged("fail")
    folder = continuity / "below"
    judged("fail", {**variables, "HELIOGRAPH_STATE_DIR": str(folder)})


def test_a_slot_that_nobody_reads_is_told(postgres_url):
    prepare(postgres_url)
    variables = settings_of(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "select pg_create_logical_replication_slot(%s, 'pgoutput')",
            (variables["HELIOGRAPH_SLOT"],),
        )
    report = run_doctor(variables)
    assert report.troubles == {"slot"}
    assert_on_its_page(report.worst("slot"))
    assert_on_its_page(report.worst("slot-wal-limit"))


def test_a_lost_slot_and_a_limit_on_wal_are_told():
    limits = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "64MB"}
    with run_test_cluster(binaries_of(18), limits) as cluster:
        variables = settings_of(cluster.url(), HELIOGRAPH_SLOT="heliograph")
        prepare(
            cluster.url(),
            "select pg_create_logical_replication_slot('heliograph', 'pgoutput')",
            "create table filler (t text)",
            *["insert into filler values ('x')", "select pg_switch_wal()", "checkpoint"] * 5,
        )
        report = run_doctor(variables)
    assert report.troubles == {"slot-lost"}
    assert report.statuses("slot-wal-limit") == {"ok"}
    assert_on_its_page(report.worst("slot-lost"))


def test_a_wal_level_without_logical_decoding_is_told():
    with run_test_cluster(binaries_of(18), {"wal_level": "replica"}) as cluster:
        report = run_doctor(settings_of(cluster.url()))
    assert {"wal-level", "migrations", "publication"} <= report.troubles
    assert_on_its_page(report.worst("wal-level"))


def test_a_database_that_was_never_prepared_is_told(postgres_url):
    report = run_doctor(settings_of(postgres_url))
    assert {"migrations", "publication"} <= report.troubles
    assert_on_its_page(report.worst("migrations"))


def test_a_database_that_can_not_be_reached_is_told(postgres_cluster):
    closed = run_doctor(settings_of("postgresql://owner:planted-word@127.0.0.1:1/shop"))
    assert closed.troubles == {"database-reach"}
    assert "planted-word" not in closed.output
    assert_on_its_page(closed.worst("database-reach"))
    absent = run_doctor(settings_of(postgres_cluster.url("no_such_database")))
    assert absent.troubles == {"database-reach"}


def test_a_replication_url_that_leads_nowhere_is_told_and_the_rest_goes_on(postgres_url):
    prepare(postgres_url)
    nowhere = "postgresql://owner@127.0.0.1:1/shop"
    report = run_doctor(settings_of(postgres_url, HELIOGRAPH_REPLICATION_URL=nowhere))
    assert report.troubles == {"replication-connection"}
    assert report.statuses("wal-level") == {"ok"}
    assert_on_its_page(report.worst("replication-connection"))


def test_a_login_that_must_not_judge_is_told(postgres_url, postgres_cluster):
    prepare(postgres_url)
    report = run_doctor(settings_of(postgres_url, HELIOGRAPH_JUDGE_URL=postgres_url))
    assert report.troubles == {"judge-login"}
    assert report.statuses("policy-errors") == {"skip"}
    assert_on_its_page(report.worst("judge-login"))


def test_a_pooler_in_the_way_is_told(postgres_url):
    async def through_pooler():
        async with transaction_pooler(postgres_url) as url:
            return await asyncio.to_thread(run_doctor, settings_of(url))

    prepare(postgres_url)
    report = asyncio.run(through_pooler())
    assert "connection-pooler" in report.troubles
    assert_on_its_page(report.worst("connection-pooler"))


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>another program</h1>")

    def log_message(self, *_arguments):
        pass


@contextlib.contextmanager
def another_program():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=functools.partial(server.serve_forever, 0.01), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_dead_port_and_one_that_another_program_has_are_told():
    dead = run_doctor(settings_of(None), "--url", "http://127.0.0.1:1")
    assert "server-port" in dead.troubles
    assert_on_its_page(dead.worst("server-port"))
    with another_program() as port:
        taken = run_doctor({**settings_of(None), "HELIOGRAPH_PORT": str(port)})
    assert "server-port" in taken.troubles
    assert_on_its_page(taken.worst("server-port"))


@pytest.mark.security
def test_no_secret_is_in_the_report(postgres_cluster):
    port = postgres_cluster.port
    planted = {
        "DATABASE_URL": f"postgresql://nobody:planted-word-1@127.0.0.1:{port}/postgres",
        "HELIOGRAPH_JWT_SECRET": "planted-word-2 that is long enough for a secret",
        "SUPABASE_ANON_KEY": "planted-word-3",
        "HELIOGRAPH_PUBLISHABLE_KEY": "sb_publishable_planted-word-4-xx",
        "HELIOGRAPH_SECRET_KEY": "sb_secret_planted-word-5-xxxxxx",
        "HELIOGRAPH_JUDGE_URL": "postgres://judge:planted-word-6@h:99999/x",
        "HELIOGRAPH_ALLOWED_ORIGINS": "https://app.example",
    }
    token = mint_token("x" * 40, {"role": "planted-word-7"}, now_s=time.time(), ttl_s=60)
    variables = {**settings_of(None), **planted}
    for arguments in (("--json",), ()):
        _, output = run_plain(variables, *arguments, "--token", token)
        assert "planted-word" not in output
        assert token not in output
        assert token.split(".")[1] not in output


def test_a_wrong_option_is_wrong_usage():
    for arguments in (("--url", "localhost:8000"), ("--url", "ftp://x"), ("--no-such-option",)):
        assert run_plain(settings_of(None), *arguments)[0] == 2
