"""Who follows a table is told when the slot was moved on while its reader was away (P1)."""

import pytest

from fixtures.raw_client import subscribed, write_until
from fixtures.without_reader import without_reader

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


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
