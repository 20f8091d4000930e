"""`heliograph serve` from the outside: what it demands, whom it lets in, how it ends."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import psycopg
import pytest
import websockets

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.serve_process import environment, refused, serving, spawned
from fixtures.server import JWT_SECRET
from fixtures.server_process import read_log
from fixtures.transaction_pooler import transaction_pooler
from fixtures.waiting import wait_until
from heliograph.core.tokens.minting import mint_legacy_key
from heliograph.limits import OPEN_FILES_RESERVED
from heliograph.postgres.migrate import migrate
from heliograph.postgres.process_deadline import ProcessDeadline
from heliograph.postgres.replication_connection import lock_key

pytestmark = pytest.mark.postgres

ANON_KEY = mint_legacy_key(JWT_SECRET, "anon")
SERVICE_KEY = mint_legacy_key(JWT_SECRET, "service_role")
JOIN = '["1","1","realtime:a","phx_join",{"config":{}}]'


def test_everything_that_is_missing_is_named_in_one_message():
    code, said = refused({"PATH": "", "HELIOGRAPH_JWT_SECRTE": "x"})
    assert code == 2
    for name in (
        *("DATABASE_URL: missing", "HELIOGRAPH_JWT_SECRET", "HELIOGRAPH_JWKS_URL"),
        *("SUPABASE_ANON_KEY", "HELIOGRAPH_JUDGE_URL", "HELIOGRAPH_ALLOWED_ORIGINS: missing"),
        "HELIOGRAPH_JWT_SECRTE: no such setting",
    ):
        assert name in said
    assert said.count("error:") == 1


def test_everything_that_is_malformed_is_named_and_no_secret_is_repeated():
    code, said = refused(
        environment(
            None,
            DATABASE_URL="postgres://owner:planted-password@h:99999/db",
            HELIOGRAPH_JWT_SECRET="planted-short",
            SUPABASE_SERVICE_ROLE_KEY="planted-key",
            HELIOGRAPH_ALLOWED_ORIGINS="*",
            HELIOGRAPH_MESSAGE_BYTES_MAX="many",
        )
    )
    assert code == 2
    for name in (
        *("DATABASE_URL", "HELIOGRAPH_JWT_SECRET", "SUPABASE_SERVICE_ROLE_KEY"),
        *("HELIOGRAPH_ALLOWED_ORIGINS", "HELIOGRAPH_MESSAGE_BYTES_MAX"),
    ):
        assert f"  {name}: expected" in said
    assert "planted" not in said


def test_a_database_that_can_not_be_served_is_refused_with_what_to_run(postgres_cluster):
    with run_test_cluster(binaries_of(18), {"wal_level": "replica"}) as cluster:
        code, said = refused(environment(cluster.url()))
        assert code == 2
        assert "ALTER SYSTEM SET wal_level = 'logical'" in said
    code, said = refused(environment(postgres_cluster.url("no_such_database")))
    assert (code, "no_such_database" in said) == (2, True)
    code, said = refused(environment("postgresql://owner@127.0.0.1:1/db"))
    assert (code, "Connection refused" in said) == (1, True)


def test_a_database_without_our_schema_is_refused_with_the_command(postgres_url):
    code, said = refused(environment(postgres_url))
    assert (code, "run `heliograph migrate`" in said) == (2, True)


@pytest.mark.asyncio
async def test_migrations_that_can_wait_are_named_and_others_must_be_run(postgres_url, tmp_path):
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await migrate(connection)
        # As after a right was granted that they had waited for.
        await connection.execute("delete from heliograph.migrations where version = 12")
        with spawned(environment(postgres_url), tmp_path, "serve") as served:
            await wait_until(lambda: "serving on" in served.log_path.read_text())
            (pending,) = [
                line for line in read_log(served.log_path) if line["event"] == "migration_pending"
            ]
            assert str(pending["migration"]).startswith("0012_")
        await connection.execute("delete from heliograph.migrations where version = 9")
        code, said = refused(environment(postgres_url))
        assert code == 2
        assert "not up to date (0009_" in said


@pytest.mark.asyncio
async def test_a_transaction_pooler_in_the_way_is_named(postgres_url):
    async with transaction_pooler(postgres_url) as url:
        code, said = await asyncio.to_thread(refused, environment(url))
    assert code == 2
    assert "DATABASE_URL leads through a pooler in transaction mode" in said


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
def test_a_signal_tells_the_clients_and_ends_with_its_code(postgres_url, tmp_path, number, code):
    async def told(served):
        async with websockets.connect(served.websocket_url + ANON_KEY) as socket:
            await socket.send(JOIN)
            assert json.loads(await socket.recv())[4]["status"] == "ok"
            served.process.send_signal(number)
            async with asyncio.timeout(20):
                assert (
                    json.loads(await socket.recv())[4]["message"] == "Server requested disconnect"
                )
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await socket.recv()
        return closed.value.rcvd.code

    with serving(postgres_url, tmp_path) as served:
        assert asyncio.run(told(served)) == 1012
        assert served.process.wait(20) == code


def test_a_signal_ends_a_server_that_is_still_starting(tmp_path):
    async def scenario():
        reached = asyncio.Event()

        async def never_answer(reader, writer):
            reached.set()
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(never_answer, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        variables = environment(f"postgresql://owner@127.0.0.1:{port}/db")
        async with silent:
            with spawned(variables, tmp_path, "serve") as starting:
                async with asyncio.timeout(20):
                    await reached.wait()
                starting.process.send_signal(signal.SIGTERM)
                return await asyncio.to_thread(starting.process.wait, 8)

    assert asyncio.run(scenario()) == 0


@pytest.mark.security
def test_only_listed_origins_may_connect_and_service_keys_never_from_a_browser(
    postgres_url, tmp_path
):
    async def status(served, key, origin):
        try:
            async with websockets.connect(served.websocket_url + key, origin=origin):
                return 101
        except websockets.InvalidStatus as error:
            return error.response.status_code

    async def scenario(served):
        assert await status(served, ANON_KEY, "https://app.example") == 101
        assert await status(served, ANON_KEY, None) == 101
        for origin in ("https://evil.example", "http://localhost:3000", "null"):
            assert await status(served, ANON_KEY, origin) == 403
        assert await status(served, SERVICE_KEY, "https://app.example") == 403
        assert await status(served, SERVICE_KEY, None) == 101

    with serving(postgres_url, tmp_path) as served:
        asyncio.run(scenario(served))


def test_readiness_names_each_part_and_follows_the_database(tmp_path):
    with run_test_cluster(binaries_of(18)) as cluster, serving(cluster.url(), tmp_path) as served:
        status, body = served.ready()
        fine = {"ready": True, "problem": None}
        assert status == 200
        assert body == {
            "status": "ready",
            "parts": {"database": fine, "reader": fine, "server": fine},
        }
        _signal_all(cluster.pid, signal.SIGSTOP)
        try:
            waiting = ProcessDeadline(30)
            waiting.require(lambda: served.ready()[0] == 503, "the database to be missed")
            parts = served.ready()[1]["parts"]
            assert "did not answer" in parts["database"]["problem"]
        finally:
            _signal_all(cluster.pid, signal.SIGCONT)
        ProcessDeadline(30).require(lambda: served.ready()[0] == 200, "the database to be back")


def test_the_lag_grows_while_nobody_reads_and_goes_away_again(postgres_url, tmp_path):
    with (
        serving(postgres_url, tmp_path) as served,
        psycopg.connect(postgres_url, autocommit=True) as sql,
    ):
        slot = environment(postgres_url)["HELIOGRAPH_SLOT"]
        sql.execute("create table t (id int primary key, filler text)")
        sql.execute("insert into t select n, repeat('x', 500) from generate_series(1, 4000) n")
        ProcessDeadline(30).require(
            lambda: served.metrics()["heliograph_transactions_total"] > 0, "a transaction"
        )
        ProcessDeadline(30).require(
            lambda: served.metrics()["heliograph_replication_lag_seconds"] == 0, "no lag"
        )
        # Stopping the walsender would be simpler, but it may hold what the INSERT waits for.
        with psycopg.connect(postgres_url, autocommit=True) as holder:

            def is_kept_out():
                sql.execute(
                    "select pg_terminate_backend(active_pid) from pg_replication_slots"
                    " where slot_name = %s",
                    (slot,),
                )
                lock = holder.execute("select pg_try_advisory_lock(%s, %s)", lock_key(slot))
                return lock.fetchone()[0]

            ProcessDeadline(30).require(is_kept_out, "the reader to be kept out")
            sql.execute(
                "insert into t select n, repeat('x', 500) from generate_series(5000, 9000) n"
            )
            for name in ("heliograph_replication_lag_bytes", "heliograph_replication_lag_seconds"):
                ProcessDeadline(30).require(lambda n=name: served.metrics()[n] > 0, name)
        ProcessDeadline(30).require(
            lambda: served.metrics()["heliograph_replication_lag_seconds"] == 0, "no lag again"
        )


@pytest.mark.security
def test_a_flood_of_sockets_leaves_files_for_the_database(postgres_url, tmp_path):
    async def flood(served):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(200 - OPEN_FILES_RESERVED):
                await stack.enter_async_context(websockets.connect(served.websocket_url + ANON_KEY))
            for _ in range(30):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await websockets.connect(served.websocket_url + ANON_KEY)
                assert refused.value.response.status_code == 429
            assert (await asyncio.to_thread(served.ready))[0] == 200

    with serving(postgres_url, tmp_path, open_files=200) as served:
        assert "too_few_open_files" in served.log_path.read_text()
        asyncio.run(flood(served))
        with psycopg.connect(postgres_url, autocommit=True) as sql:
            sql.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        ProcessDeadline(30).require(lambda: served.ready()[0] == 200, "the server to be ready")


def _signal_all(postmaster_pid, number):
    pids = [postmaster_pid, *_children(postmaster_pid)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(parent):
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent(entry) == parent
    ]


def _parent(entry):
    try:
        return int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None
