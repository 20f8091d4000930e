"""What a subscriber is told whose connection has no room while tables and rights change."""

import contextlib
import json

import psycopg
import pytest

from fixtures.raw_client import BOB, connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


SCHEMA = """
create table bulk (id int primary key, filler text, secret text);
alter table bulk replica identity full;
alter publication supabase_realtime add table bulk;
revoke all on bulk from anon, authenticated;
grant select (id, filler) on bulk to authenticated;
"""


@contextlib.asynccontextmanager
async def two_readers(server):
    """A client that reads and one that has stopped; both subscribed to the table."""
    async with connected(server) as quick, connected(server) as stalled:
        for client in (quick, stalled):
            await client.join("b", server.token(BOB), table("bulk"))
        stalled.socket.transport.pause_reading()
        yield quick, stalled


async def fill(server, quick):
    """Write more than the stopped client's buffers take; wait until the quick one has it."""
    async with await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql:
        for start in range(0, 12_000, 100):
            await sql.execute(
                "insert into bulk select n, repeat('x', 600), 'EARLY'"
                " from generate_series(%s::int, %s::int) n",
                (start, start + 99),
            )
    await quick.until(lambda: len(quick.changes("b")) == 12_000, 60)


async def test_nothing_older_follows_the_news_that_the_table_was_emptied(start_server):
    server = start_server(HELIOGRAPH_ALLOW_WITHOUT_RLS="bulk")
    server.sql(SCHEMA)
    async with two_readers(server) as (quick, slow):
        await fill(server, quick)
        server.sql("truncate bulk", "insert into bulk values (-1)")
        await quick.until(lambda: has_last(quick))
        slow.socket.transport.resume_reading()
        await slow.until(lambda: has_last(slow), 60)
        assert server.metrics()["heliograph_catch_ups_total"] >= 1
        for client in (quick, slow):
            assert told_after_resync(client, "truncated") == [-1]


def has_last(client):
    return client.frames[-1][3] == "postgres_changes" and '"id": -1' in json.dumps(
        client.frames[-1]
    )


def told_after_resync(client, reason):
    """Return the ids told after a resync."""
    told = [frame for frame in client.frames if frame[3] in {"postgres_changes", "system"}]
    places = [n for n, frame in enumerate(told) if frame[4].get("message") == f"resync: {reason}"]
    assert len(places) == 1
    return [frame[4]["data"]["record"]["id"] for frame in told[places[0] + 1 :]]


async def test_a_column_granted_later_is_not_shown_of_what_was_committed_before(start_server):
    server = start_server(HELIOGRAPH_ALLOW_WITHOUT_RLS="bulk")
    server.sql(SCHEMA)
    async with two_readers(server) as (quick, slow):
        await fill(server, quick)
        server.sql("grant select (secret) on bulk to authenticated")
        server.sql("insert into bulk values (-1, '', 'LATE')")
        await quick.until(lambda: "LATE" in json.dumps(quick.frames[-1]))
        slow.socket.transport.resume_reading()
        await slow.until(lambda: slow.errors("b"), 60)
        server.sql("insert into bulk values (-2, '', 'LAST')")
        await slow.until(lambda: "LAST" in json.dumps(slow.frames[-1]))
        assert "EARLY" not in json.dumps(quick.frames + slow.frames)
        assert slow.errors("b") == ["resync: rights_changed"]


async def test_a_large_transaction_is_judged_in_pieces_that_are_in_time(server):
    server.sql(
        "create table slow (id int primary key)",
        "create function slowly() returns bool language plpgsql stable as"
        " $$ begin perform pg_sleep(0.001); return true; end $$",
        "alter table slow enable row level security",
        "create policy p on slow for select to authenticated using (slowly() and id is not null)",
        "alter publication supabase_realtime add table slow",
    )
    async with connected(server) as client:
        await client.join("s", server.token(BOB), table("slow"))
        # Some two seconds of judging; one statement may take JUDGEMENT_TIMEOUT_S = 1.
        server.sql("insert into slow select generate_series(1, 1500)")
        await client.until(lambda: len(client.changes("s")) >= 1_500 or client.errors("s"), 60)
        assert [change["record"]["id"] for change in client.changes("s")] == list(range(1, 1_501))


async def test_who_lags_is_judged_for_in_batches_like_who_does_not(server):
    server.sql(
        "create table bulk (id int primary key, owner uuid, filler text)",
        "alter table bulk replica identity full",
        "alter table bulk enable row level security",
        "create policy own on bulk for select to authenticated using (owner = (select auth.uid()))",
        "grant select on bulk to authenticated",
        "alter publication supabase_realtime add table bulk",
    )
    count = 12_000
    async with two_readers(server) as (quick, slow):
        server.sql(
            f"do $$ begin for n in 1..{count} loop"
            f" insert into bulk values (n, '{BOB}', repeat('x', 600)); commit;"
            " end loop; end $$"
        )
        await quick.until(lambda: len(quick.changes("b")) == count, 60)
        before = server.metrics()["heliograph_judgement_seconds_count"]
        slow.socket.transport.resume_reading()
        await slow.until(lambda: len(slow.changes("b")) == count, 60)
        after = server.metrics()
        assert after["heliograph_catch_ups_total"] >= 1
        assert after["heliograph_judgement_seconds_count"] - before < count / 50
        assert [change["record"]["id"] for change in slow.changes("b")] == [*range(1, count + 1)]
