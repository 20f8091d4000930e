"""A transaction larger than every buffer, cut off within it: by clients, its reader, the server."""

import signal

import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.raw_client import ALICE, BOB
from fixtures.server import run_server
from fixtures.server_process import slot_of
from fixtures.without_reader import END_STREAM
from heliograph import limits

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.fault, pytest.mark.asyncio]

TABLES = (
    "create table bulk (id int primary key, owner uuid, body text)",
    "create table chat (id int primary key, owner uuid)",
    *(
        statement
        for name in ("bulk", "chat")
        for statement in (
            f"alter table {name} enable row level security",
            f"create policy own on {name} for select to authenticated using (owner = auth.uid())",
            f"grant select on {name} to authenticated",
            f"alter table {name} replica identity full",
            f"alter publication supabase_realtime add table {name}",
        )
    ),
)
ROWS, WIDTH = 24_000, 800
HERS = list(range(10, ROWS + 1, 10))


async def write_large(day):
    """Some 19 MB of WAL in one transaction, every tenth row Alice's, and small ones behind it."""
    assert ROWS * WIDTH > limits.TRANSACTION_BYTES_IN_MEMORY_MAX
    await day.sql.execute(
        "insert into bulk select n, case when n %% 10 = 0 then %s::uuid end, repeat('x', %s)"
        " from generate_series(1, %s) n",
        (ALICE, WIDTH, ROWS),
    )
    for number in range(1, 4):
        await day.sql.execute("insert into chat values (%s, %s)", (number, BOB))


async def end_stream(day):
    await day.sql.execute(END_STREAM, (slot_of(day.server.database_url),))


async def cut_within(day):
    """Follow until some of the large transaction came and was marked; be gone.

    Its reader is killed while it receives it.
    """
    async with keeping(day.server) as leaving:
        left = await day.follow(leaving, "bulk", ALICE)
        await write_large(day)
        for _ in range(2):
            await end_stream(day)
        await leaving.until(lambda: len(left.rows) >= limits.POSITION_INSIDE_CHANGES)
    assert len(left.rows) < len(HERS)
    return left


async def test_who_is_cut_off_within_it_goes_on_there_although_its_reader_is_killed(server):
    async with day_of(server, *TABLES) as day, keeping(server) as client, keeping(server) as other:
        here = [await day.follow(client, "bulk", ALICE, positions=kept) for kept in (True, False)]
        bob = await day.follow(other, "chat", BOB)
        left = await cut_within(day)
        await end_stream(day)
        async with keeping(server) as again:
            back = await day.follow(again, "bulk", ALICE, after=left)
            await day.settle(back, bob, *here, deadline_s=60)
            for follower in here:
                assert (follower.reasons, seen(follower)) == ([], HERS)
            assert (back.reasons, seen(back)) == ([], HERS[-len(seen(back)) :])
            assert len(seen(back)) < len(HERS)
            assert (bob.reasons, seen(bob)) == ([], [1, 2, 3])


async def test_a_server_that_is_killed_within_it_goes_on_there_when_it_is_started_again(
    postgres_url, tmp_path
):
    with run_server(postgres_url, tmp_path) as server:
        async with day_of(server, *TABLES) as day:
            left = await cut_within(day)
        server.stop(signal.SIGKILL)
    with run_server(postgres_url, tmp_path) as server:
        async with day_of(server) as day, keeping(server) as client:
            bob = await day.follow(client, "chat", BOB)
            back = await day.follow(client, "bulk", ALICE, after=left)
            await day.settle(back, bob, deadline_s=60)
            assert (back.reasons, seen(back)) == ([], HERS[-len(seen(back)) :])
            assert len(seen(back)) < len(HERS)
