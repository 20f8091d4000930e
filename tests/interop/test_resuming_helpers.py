"""Both helpers around the official clients: an unbroken sequence whatever is killed (P1)."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import psycopg
import pytest
from realtime import AsyncRealtimeClient

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.restarted import restarted
from fixtures.server import run_server
from fixtures.waiting import wait_until
from fixtures.without_reader import without_reader
from heliograph.client.resuming_channel import ResumingChannel

ROOT = Path(__file__).parents[2]
TABLE = (
    "create table w (id int primary key)",
    "alter publication supabase_realtime add table w",
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.postgres,
    pytest.mark.asyncio,
    # The package reads what websockets has deprecated.
    pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning"),
]


class Told:
    """What a helper handed on: row ids, and the reasons of its loads."""

    def __init__(self):
        self.ids = []
        self.loads = []


@contextlib.asynccontextmanager
async def python_client(url, key, told, *, failures=0):
    async def load(reason):
        told.loads.append(reason)
        if len(told.loads) <= failures:
            raise ConnectionError

    client = AsyncRealtimeClient(
        url.replace("http", "ws", 1) + "/realtime/v1", token=key, max_retries=100
    )
    client.initial_backoff = 0.1
    channel = ResumingChannel(client.channel("w"), load)
    channel.on_changes(
        "*", lambda change: told.ids.append(change["data"]["record"]["id"]), table="w"
    )
    await channel.subscribe()
    try:
        yield channel
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def js_client(url, key, told, *, vsn, failures=0):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "scripts" / "node.py"), "node"),
        *(str(ROOT / "interop" / "resuming.mjs"), url, key, key, vsn, "w", str(failures)),
        cwd=ROOT / "interop",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def read():
        async for line in process.stdout:
            said = json.loads(line)
            if "id" in said:
                told.ids.append(said["id"])
            if "load" in said:
                told.loads.append(said["load"])

    reading = asyncio.create_task(read())
    try:
        yield process
    finally:
        process.stdin.write(b"\n")
        await process.wait()
        await reading


async def write(database_url, numbers):
    """Insert one row after the other; an outage of PostgreSQL is waited out."""
    left = list(numbers)

    async def is_written():
        try:
            connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
            async with await connecting as sql:
                while left:
                    # Again if the answer was lost with the connection.
                    await sql.execute("insert into w values (%s) on conflict do nothing", left[:1])
                    del left[0]
        except psycopg.OperationalError:
            return False
        return True

    await wait_until(is_written, "PostgreSQL to take every row", deadline_s=60)


@contextlib.asynccontextmanager
async def three_clients(url, key, *, failures=0):
    """Follow the table with Python and with both serializers of supabase-js.

    The first `failures` loads of each fail.
    """
    told = [Told(), Told(), Told()]
    async with (
        python_client(url, key, told[0], failures=failures),
        js_client(url, key, told[1], vsn="1.0.0", failures=failures),
        js_client(url, key, told[2], vsn="2.0.0", failures=failures),
    ):
        for one in told:
            await wait_until(lambda one=one: one.loads[:1] == ["subscribed"], "the first load")
        yield told


async def write_and_check(told, database_url, rows, harm, *, at=(0.2, 0.6)):
    """Write rows, do harm at some parts of them, and have every client see each row once."""
    writing = asyncio.create_task(write(database_url, range(rows)))
    for part in at:
        await wait_until(lambda part=part: len(told[0].ids) > rows * part, deadline_s=60)
        await harm()
    await writing
    for one in told:
        await wait_until(lambda one=one: len(one.ids) >= rows, "every row", deadline_s=60)
        assert one.ids == list(range(rows))
        assert one.loads == ["subscribed"]


async def test_a_load_that_fails_is_told_and_tried_again(server, caplog):
    server.sql(*TABLE)
    async with three_clients(server.url, server.service_role_key, failures=2) as told:
        await write(server.database_url, range(3))
        for one in told:
            await wait_until(lambda one=one: one.ids == [0, 1, 2], "the rows")
            assert one.loads == ["subscribed"] * 3
    assert caplog.text.count("load failed") == 2


async def test_a_kill_of_the_server_within_a_burst_leaves_an_unbroken_sequence(
    postgres_url, tmp_path
):
    async with restarted(postgres_url, tmp_path) as running:
        running.server.sql(*TABLE)
        key = running.server.service_role_key
        async with three_clients(running.server.url, key) as told:
            await write_and_check(told, postgres_url, 3_000, running.kill)


async def test_a_kill_of_postgresql_within_a_burst_leaves_an_unbroken_sequence(tmp_path):
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(run_test_cluster(binaries_of(18)))
        database_url = cluster.create_database()
        server = stack.enter_context(run_server(database_url, tmp_path))
        server.sql(*TABLE)

        async def kill():
            cluster.kill()
            await asyncio.to_thread(cluster.start_again)

        async with three_clients(server.url, server.service_role_key) as told:
            await write_and_check(told, database_url, 3_000, kill)


async def test_a_lost_slot_is_told_with_its_reason_and_the_state_is_exact_again(
    server,
):
    server.sql(*TABLE)
    async with (
        three_clients(server.url, server.service_role_key) as told,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await write(server.database_url, range(10))
        for one in told:
            await wait_until(lambda one=one: len(one.ids) == 10, "every row")
        async with without_reader(server, sql) as slot:
            await write(server.database_url, range(10, 20))
            await sql.execute("select pg_drop_replication_slot(%s)", (slot,))
        for one in told:
            await wait_until(lambda one=one: one.loads[-1] == "slot_recreated", "the resync")
        await write(server.database_url, range(20, 30))
        for one in told:
            await wait_until(lambda one=one: len(one.ids) == 20, "what came live")
            assert one.ids == [*range(10), *range(20, 30)]
