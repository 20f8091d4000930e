"""A transaction larger than memory allows, and a reader that stops reading, from a socket."""

import asyncio
import contextlib
import itertools
import json

import psycopg
import pytest

from fixtures.raw_client import BOB, connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


SCHEMA = """
create table bulk (id int primary key, owner uuid, filler text);
alter table bulk enable row level security;
create policy own on bulk for select to authenticated using (owner = (select auth.uid()));
alter table bulk replica identity full;
alter publication supabase_realtime add table bulk;
"""


async def test_an_oversize_transaction_arrives_judged_and_others_go_on(server):
    server.sql(SCHEMA)
    async with connected(server) as bob:
        await bob.join("b", server.token(BOB), table("bulk"))
        async with await psycopg.AsyncConnection.connect(
            server.database_url, autocommit=True
        ) as sql:
            # Some 24 MB of WAL, above TRANSACTION_BYTES_IN_MEMORY_MAX; every 100th row is Bob's.
            await sql.execute(
                "insert into bulk select n, case when n %% 100 = 0 then %s::uuid end,"
                " repeat('x', 400) from generate_series(1, 60000) n",
                (BOB,),
            )
            await sql.execute("insert into bulk values (0, %s, 'after')", (BOB,))
        await bob.until(lambda: len(bob.changes("b")) >= 601 or bob.errors("b"), 60)
        assert [said["message"] for said in bob.systems("b")] == ["Subscribed to PostgreSQL"]
        seen = [change["record"]["id"] for change in bob.changes("b")]
        assert seen == [*range(100, 60_001, 100), 0]


@pytest.mark.parametrize(("rows", "width"), [(8_000, 3_000), (8_000, 800)])
async def test_wide_rows_of_a_large_transaction_all_arrive(server, rows, width):
    """Above and below what a transaction may take in memory, beyond any outbound buffer."""
    server.sql(SCHEMA)
    async with connected(server) as bob:
        await bob.join("b", server.token(BOB), table("bulk"))
        await bob.join("s", server.service_role_key, table("bulk"))
        async with await psycopg.AsyncConnection.connect(server.database_url) as sql:
            await sql.execute(
                "insert into bulk select n, %s::uuid, repeat('x', %s)"
                " from generate_series(1, %s) n",
                (BOB, width, rows),
            )
        for topic in ("b", "s"):
            await bob.until(lambda topic=topic: len(bob.changes(topic)) >= rows, 60)
            assert [c["record"]["id"] for c in bob.changes(topic)] == list(range(1, rows + 1))
            assert len(bob.systems(topic)) == 1


@pytest.mark.security
@pytest.mark.parametrize(("rows", "width"), [(12_000, 2_000), (12_000, 1_000)])
async def test_a_stalled_reader_of_a_large_transaction_holds_nobody_up(server, rows, width):
    """The others go on without it, and it gets every row once it reads again."""
    server.sql(SCHEMA, "create table chat (id int primary key)")
    server.sql("alter publication supabase_realtime add table chat")
    async with connected(server) as quick, connected(server) as slow:
        await quick.join("q", server.service_role_key, table("chat"), table("bulk"))
        await slow.join("s", server.token(BOB), table("bulk"))
        await slow.join("t", server.service_role_key, table("bulk"))
        slow.socket.transport.pause_reading()
        async with await psycopg.AsyncConnection.connect(
            server.database_url, autocommit=True
        ) as sql:
            await sql.execute(
                "insert into bulk select n, %s::uuid, repeat('x', %s)"
                " from generate_series(1, %s) n",
                (BOB, width, rows),
            )
            await sql.execute("insert into chat values (1)")
            await quick.until(lambda: last_table(quick, "q") == "chat", 60)
            await sql.execute("insert into bulk values (0, %s, 'after')", (BOB,))
        assert len(quick.changes("q")) >= rows + 1
        slow.socket.transport.resume_reading()
        for topic in ("s", "t"):
            await slow.until(lambda topic=topic: len(slow.changes(topic)) >= rows + 1, 60)
            seen = [change["record"]["id"] for change in slow.changes(topic)]
            assert seen == [*range(1, rows + 1), 0]
            assert len(slow.systems(topic)) == 1


async def test_a_large_transaction_is_judged_while_many_small_ones_follow(server):
    """Each judgement waits for the stream, which must not pause until the rows are delivered."""
    server.sql(SCHEMA, "create table chat (id int primary key)")
    server.sql("alter publication supabase_realtime add table chat")
    async with connected(server) as bob:
        await bob.join("b", server.token(BOB), table("bulk"))
        await bob.join("c", server.service_role_key, table("chat"))
        await asyncio.to_thread(
            server.sql,
            "insert into bulk select n, case when n % 100 = 0 then"
            f" '{BOB}'::uuid end, repeat('x', 400) from generate_series(1, 60000) n",
            "do $$ begin for n in 1..15000 loop insert into chat values (n); commit; end loop;"
            " end $$",
        )
        await bob.until(lambda: len(bob.changes("c")) >= 15_000, 60)
        await bob.until(lambda: len(bob.changes("b")) >= 600 or bob.errors("b"), 60)
        assert [change["record"]["id"] for change in bob.changes("c")] == [*range(1, 15_001)]
        assert [change["record"]["id"] for change in bob.changes("b")] == [*range(100, 60_001, 100)]
        assert len(bob.systems("b")) == len(bob.systems("c")) == 1


def last_table(client, topic):
    changes = client.changes(topic)
    return changes[-1]["table"] if changes else None


async def test_a_reader_that_stops_reading_loses_nothing_when_it_goes_on(server):
    server.sql(SCHEMA)
    async with connected(server) as quick, connected(server) as slow:
        await quick.join("q", server.token(BOB), table("bulk"))
        await slow.join("s", server.token(BOB), table("bulk"))
        slow.socket.transport.pause_reading()
        async with await psycopg.AsyncConnection.connect(
            server.database_url, autocommit=True
        ) as sql:
            for start in range(0, 12_000, 100):
                await sql.execute(
                    "insert into bulk select n, %s::uuid, repeat('x', 600)"
                    " from generate_series(%s::int, %s::int) n",
                    (BOB, start, start + 99),
                )
        await quick.until(lambda: len(quick.changes("q")) == 12_000, 60)
        slow.socket.transport.resume_reading()
        await slow.until(lambda: len(slow.changes("s")) >= 12_000, 60)
        assert [c["record"]["id"] for c in slow.changes("s")] == list(range(12_000))
        assert server.metrics()["heliograph_catch_ups_total"] >= 1


async def test_an_audience_with_slow_policies_does_not_hold_up_the_others(server):
    server.sql(
        "create table slow (id int primary key)",
        # 3 ms a row for one user: in time for one statement, long for a transaction.
        "create function slowly() returns bool language plpgsql stable as $$ begin"
        " if auth.jwt() ->> 'sub' = 'slow' then perform pg_sleep(0.003); end if;"
        " return true; end $$",
        "alter table slow enable row level security",
        "create policy p on slow for select to authenticated using (slowly() and id is not null)",
        "create table chat (id int primary key)",
        "alter publication supabase_realtime add table slow, chat",
    )
    async with connected(server) as client:
        await client.join("slow", server.token("slow"), table("slow"))
        await client.join("quick", server.token("quick"), table("slow"))
        await client.join("chat", server.service_role_key, table("chat"))
        server.sql("insert into slow select generate_series(1, 3000)")
        server.sql("insert into slow values (-1)")
        server.sql("insert into chat values (1)")
        await client.until(lambda: client.changes("chat"), 60)
        await client.until(lambda: len(client.changes("quick")) >= 3_001, 60)
        # Judging takes it some 9 s; the others have everything long before.
        assert len(client.changes("slow")) < 1_500
        await client.until(lambda: ids(client, "slow")[-1:] == [-1], 120)
        assert ids(client, "quick") == ids(client, "slow") == [*range(1, 3_001), -1]
        assert client.errors("slow") == client.errors("quick") == []


def ids(client, topic):
    return [change["record"]["id"] for change in client.changes(topic)]


async def test_a_table_that_changes_while_a_large_transaction_of_it_is_delivered(server):
    """Policies and columns are read anew between two segments: nothing is missing untold."""
    server.sql(
        "create table wide (id int primary key, filler text)",
        "alter table wide enable row level security",
        "create policy p on wide for select to authenticated using (id > 0)",
        "alter publication supabase_realtime add table wide",
    )
    async with connected(server) as client:
        await client.join("w", server.token(BOB), table("wide"))
        await client.join("s", server.service_role_key, table("wide"))
        server.sql("create role other_role nologin")
        wanted = set()
        for number, rights in enumerate(["grant other_role to", "revoke other_role from"] * 2):
            first = number * 20_000 + 1
            server.sql(
                rows(first, first + 14_999),
                f"{rights} authenticated",
                f"alter table wide add column extra_{number} int",
                rows(first + 15_000, first + 17_999),
            )
            wanted |= set(range(first, first + 18_000))
        server.sql("drop role other_role")
        number = itertools.count(1_000_000)
        async with asyncio.timeout(60):
            for topic in ("w", "s"):
                while not has_mark(client, topic):
                    server.sql(f"insert into wide (id) values ({next(number)})")
                    with contextlib.suppress(TimeoutError):
                        await client.until(lambda topic=topic: has_mark(client, topic), 1)
        for topic in ("w", "s"):
            errors = client.errors(topic)
            assert "internal_error" not in json.dumps(errors)
            missing = wanted - set(ids(client, topic))
            assert not missing or any(text.startswith("resync: ") for text in errors), topic


def has_mark(client, topic):
    return any(change["record"]["id"] >= 1_000_000 for change in client.changes(topic))


def rows(first, last):
    return f"insert into wide (id, filler) select n, 'x' from generate_series({first}, {last}) n"
