"""Transactions that had written to a table before it was published, and commit afterwards.

The stream may lack what they wrote before (PostgreSQL decides that change by change), so who
follows the table is told once they have ended, and is told no position until then.
"""

import contextlib
import signal

import psycopg
import pytest

from fixtures.raw_client import connected, stopped, table, write_until
from fixtures.resuming import following
from fixtures.server import run_server
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

TABLES = (
    "create table w (id int primary key)",
    "create table other (id int primary key)",
    "alter publication supabase_realtime add table other",
)
ADD = "alter publication supabase_realtime add table w"
DROP = "alter publication supabase_realtime drop table w"
CHANGED = "publication_changed"

#: How a publication comes to send more of a table, and what it sent of it before.
WIDENED = {
    "added": (DROP, ADD),
    "row filter": (
        "alter publication supabase_realtime set table other, w where (id > 100)",
        "alter publication supabase_realtime set table other, w",
    ),
    "operations": (
        "alter publication supabase_realtime set (publish = 'delete')",
        "alter publication supabase_realtime set (publish = 'insert, update, delete, truncate')",
    ),
}


@contextlib.asynccontextmanager
async def sql_of(server, *, autocommit=True):
    connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=autocommit)
    async with await connecting as sql:
        yield sql


async def pass_a_mark(client, sql, number):
    """Have a position told on the other table: whatever could be told before it was."""
    told = len(client.marks("other"))
    await sql.execute("insert into other values (%s)", (number,))
    await client.until(lambda: number in client.ids("other"))
    await client.until(lambda: len(client.marks("other")) > told)


@pytest.mark.parametrize("how", WIDENED)
async def test_who_follows_a_table_is_told_when_its_late_writers_have_ended(any_server, how):
    server = any_server
    narrow, widen = WIDENED[how]
    server.sql(*TABLES, ADD)
    async with following(server) as client, sql_of(server) as sql:
        await client.follow("w", server.service_role_key)
        await client.follow("other", server.service_role_key)
        await sql.execute(narrow)
        await client.until(lambda: CHANGED in client.resyncs("w"))
        async with (
            sql_of(server, autocommit=False) as late,
            sql_of(server, autocommit=False) as more,
        ):
            await late.execute("insert into w values (1)")
            await more.execute("insert into w values (2)")
            await sql.execute(widen)
            await more.commit()

            async def write(number):
                await sql.execute("insert into w values (%s)", (number,))

            # The server of a plain owner notices the change within seconds only.
            await write_until(client, lambda: max(client.ids("w"), default=0) >= 1_000, write)
            told = client.marks("w")
            resyncs = len(client.resyncs("w"))
            await pass_a_mark(client, sql, 1)
            await pass_a_mark(client, sql, 2)
            assert client.marks("w") == told
            await late.execute("insert into w values (4)")
            await late.commit()
        await client.until(lambda: len(client.resyncs("w")) > resyncs)
        assert client.resyncs("w")[-1] == CHANGED
        await client.until(lambda: 4 in client.ids("w"))
        # And it goes on as ever.
        told = len(client.marks("w"))
        await sql.execute("insert into w values (5)")
        await client.until(lambda: 5 in client.ids("w") and len(client.marks("w")) > told)


async def test_while_a_table_is_not_published_no_position_is_told_to_who_named_it(any_server):
    server = any_server
    server.sql(*TABLES, ADD)
    async with following(server) as client, sql_of(server) as sql:
        both = (table("w", positions=True), table("other"))
        assert (await client.join("w", server.service_role_key, *both))["status"] == "ok"
        await client.follow("other", server.service_role_key)
        await client.until(lambda: client.marks("w"))
        await sql.execute(DROP)
        await client.until(lambda: client.resyncs("w") == [CHANGED])
        told = client.marks("w")
        # Nobody hears of it.
        await sql.execute("insert into w values (1)")
        await pass_a_mark(client, sql, 1)
        await pass_a_mark(client, sql, 2)
        assert client.marks("w") == told
        assert client.ids("w") == [1, 2]
        await sql.execute(ADD)
        await client.until(lambda: len(client.resyncs("w")) > 1)
        resyncs = len(client.marks("w"))
        await client.until(lambda: len(client.marks("w")) > resyncs)
        assert set(client.resyncs("w")) == {CHANGED}


async def test_who_subscribes_soon_after_a_table_was_added_is_told_no_position_before(any_server):
    server = any_server
    server.sql(*TABLES)
    async with following(server) as client, sql_of(server) as sql:
        await client.follow("other", server.service_role_key)
        async with sql_of(server, autocommit=False) as late:
            await late.execute("insert into w values (1)")
            await sql.execute(ADD)
            said = await client.join("w", server.service_role_key, table("w", positions=True))
            assert said["message"] == "Subscribed to PostgreSQL"
            await sql.execute("insert into w values (2)")
            await client.until(lambda: 2 in client.ids("w"))
            await pass_a_mark(client, sql, 1)
            await pass_a_mark(client, sql, 2)
            assert client.marks("w") == []
            await late.commit()
        await client.until(lambda: client.marks("w"))
        assert client.resyncs("w") == [CHANGED]


async def test_who_keeps_no_positions_is_told_again(any_server):
    server = any_server
    server.sql(*TABLES, ADD)
    async with connected(server) as client, sql_of(server) as sql:
        await client.join("w", server.service_role_key, table("w"))
        async with sql_of(server, autocommit=False) as late:
            await late.execute("insert into w values (1)")
            await sql.execute(DROP)
            await sql.execute(ADD)
            await client.until(lambda: client.errors("w"))
            told = len(client.errors("w"))
            await late.commit()
        await client.until(lambda: len(client.errors("w")) > told)
        assert set(client.errors("w")) == {f"resync: {CHANGED}"}


async def test_who_writes_behind_a_change_of_columns_is_not_late(server):
    """It names other columns in the publication, too; nobody could write while it was made."""
    server.sql(*TABLES, ADD)
    async with following(server) as client, sql_of(server) as sql:
        await client.follow("w", server.service_role_key)
        await client.follow("other", server.service_role_key)
        async with sql_of(server, autocommit=False) as writer:
            with stopped(server):
                await sql.execute("alter table w add column body text")
                await writer.execute("insert into w values (1, 'a')")
            await client.until(lambda: client.resyncs("w"))
            told = len(client.marks("w"))
            await sql.execute("insert into w values (2, 'b')")
            await client.until(lambda: len(client.marks("w")) > told)
        await pass_a_mark(client, sql, 1)
        assert client.resyncs("w")[0] == "schema_changed"
        assert CHANGED not in client.resyncs("w")


async def test_who_writes_elsewhere_or_began_later_holds_nobody_up(any_server):
    server = any_server
    server.sql(*TABLES)
    async with (
        following(server) as client,
        sql_of(server) as sql,
        sql_of(server, autocommit=False) as elsewhere,
        sql_of(server, autocommit=False) as later,
    ):
        await elsewhere.execute("insert into other values (1)")
        await client.follow("other", server.service_role_key)
        await sql.execute(ADD)
        # Whoever writes before the server has looked may be taken for late.
        await pass_a_mark(client, sql, 2)
        await wait_until(lambda: not server.metrics()["heliograph_late_writer_tables"], "a look")
        await later.execute("insert into w values (1)")
        await client.follow("w", server.service_role_key)
        assert client.resyncs("w") == []


@pytest.mark.parametrize("url", ["postgres_url", "plain_url"])
async def test_late_writers_are_known_behind_a_restart(url, request, tmp_path):
    database_url = request.getfixturevalue(url)
    with contextlib.ExitStack() as ends:
        with run_server(database_url, tmp_path) as server:
            server.sql(*TABLES, ADD)
            async with following(server) as client, sql_of(server) as sql:
                await client.follow("w", server.service_role_key)
                await sql.execute("insert into w values (1)")
                since = await client.settled("w", 1)
            late = ends.enter_context(psycopg.connect(server.database_url))
            late.execute("insert into w values (2)")
            server.sql(DROP, ADD)
            server.stop(signal.SIGKILL)
        with run_server(database_url, tmp_path) as server:
            async with following(server) as client, sql_of(server) as sql:
                await client.follow("other", server.service_role_key)
                joined = table("w", positions=True, since=since)
                await client.join("w", server.service_role_key, joined)
                await sql.execute("insert into w values (3)")
                await client.until(lambda: 3 in client.ids("w"))
                await pass_a_mark(client, sql, 1)
                assert client.marks("w") == []
                late.commit()
                await client.until(lambda: client.marks("w"))
                assert client.resyncs("w")


async def test_who_writes_while_a_server_starts_again_is_not_late(postgres_url, tmp_path):
    """The slot sends again how the table was published; that was long ago for who began later."""
    with run_server(postgres_url, tmp_path) as server:
        server.sql(*TABLES, ADD)
        async with following(server) as client, sql_of(server) as sql:
            await client.follow("w", server.service_role_key)
            await sql.execute("insert into w values (1)")
            since = await client.settled("w", 1)
        server.stop(signal.SIGKILL)
    async with sql_of(server, autocommit=False) as writer:
        await writer.execute("insert into w values (2)")
        with run_server(postgres_url, tmp_path) as server:
            async with following(server) as client, sql_of(server) as sql:
                await client.follow("other", server.service_role_key)
                await sql.execute("insert into other values (1)")
                await client.settled("other", 1)
                await client.follow("w", server.service_role_key, since=since)
                await sql.execute("insert into w values (3)")
                await client.settled("w", 1)
                assert (client.ids("w"), client.resyncs("w")) == ([3], [])
