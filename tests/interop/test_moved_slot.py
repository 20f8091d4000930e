"""Who follows a table is told when the slot was moved on while its reader was away (P1)."""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.raw_client import subscribed, write_until
from fixtures.server_process import slot_of
from heliograph.postgres.replication_connection import lock_key

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

END_STREAM = (
    "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s"
)


@contextlib.asynccontextmanager
async def without_reader(server, sql):
    """End the server's stream, and keep its reader out until the block ends."""
    slot = slot_of(server.database_url)
    connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
    async with await connecting as holder:
        taking = asyncio.create_task(
            holder.execute("select pg_advisory_lock(%s, %s)", lock_key(slot))
        )
        while not taking.done():
            await sql.execute(END_STREAM, (slot,))
            await asyncio.wait((taking,), timeout=0.05)
        yield slot


async def test_a_slot_that_somebody_moved_on_is_told(any_server):
    server = any_server
    server.sql(
        "create table w (id int primary key)", "alter publication supabase_realtime add table w"
    )
    async with subscribed(server, "w") as (client, sql):
        await sql.execute("insert into w values (0)")
        await client.until(lambda: client.changes("w"))
        async with without_reader(server, sql) as slot:
            await sql.execute("insert into w values (1)")
            await sql.execute(
                "select pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())", (slot,)
            )
        await client.until(lambda: client.errors("w"))
        assert client.errors("w") == ["resync: slot_moved"]

        async def write(number):
            await sql.execute("insert into w values (%s)", (number,))

        # Without event triggers the rights are not known again before the first judgement.
        await write_until(client, lambda: len(client.changes("w")) > 1, write)
        assert set(client.errors("w")[1:]) <= {"resync: rights_changed"}
    seen = [change["record"]["id"] for change in client.changes("w")]
    assert seen[0] == 0
    assert 1 not in seen


async def test_an_ordinary_reconnect_loses_nothing_and_tells_nobody(any_server):
    server = any_server
    server.sql(
        "create table w (id int primary key)", "alter publication supabase_realtime add table w"
    )
    async with subscribed(server, "w") as (client, sql):
        for number in range(3):
            await sql.execute("insert into w values (%s)", (number * 10,))
            await client.until(lambda n=number: len(client.changes("w")) == n * 2 + 1)
            async with without_reader(server, sql):
                await sql.execute("insert into w values (%s)", (number * 10 + 1,))
            await client.until(lambda n=number: len(client.changes("w")) == n * 2 + 2)
        assert client.errors("w") == []
    assert [change["record"]["id"] for change in client.changes("w")] == [0, 1, 10, 11, 20, 21]
