"""Functions that policies call, replaced while one is connected, and while one is away."""

import pytest

from fixtures.keeping import day_of, keeping
from fixtures.raw_client import ALICE, BOB

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

FINE = """
create or replace function fine(body text) returns bool language sql stable as
  $$ select body {} 'secret' $$
"""
HIDING, SHOWING = FINE.format("<>"), FINE.format("is not null or body =")
TABLES = (
    "create table notes (id int primary key, owner uuid, body text default 'plain')",
    HIDING,
    "alter table notes enable row level security",
    (
        "create policy own on notes for select to authenticated"
        " using (owner = auth.uid() and fine(body))"
    ),
    "grant select on notes to authenticated",
    "create table calm (id int primary key, owner uuid)",
    "alter table calm enable row level security",
    "create policy own on calm for select to authenticated using (owner = auth.uid())",
    "grant select on calm to authenticated",
    "alter table notes replica identity full",
    "alter table calm replica identity full",
    "alter publication supabase_realtime add table notes, calm",
)


async def write(day, *numbers):
    for number in numbers:
        body = "plain" if number % 2 else "secret"
        await day.sql.execute("insert into notes values (%s, %s, %s)", (number, ALICE, body))
        await day.sql.execute("insert into calm values (%s, %s)", (number, BOB))


async def test_a_function_replaced_in_mid_stream_shows_what_select_shows_or_is_told(any_server):
    server = any_server
    async with day_of(server, *TABLES) as day, keeping(server) as client, keeping(server) as other:
        alice = await day.follow(client, "notes", ALICE)
        plain = await day.follow(client, "notes", ALICE, positions=False)
        calm = await day.follow(other, "calm", BOB)
        async with keeping(server) as leaving:
            left = await day.follow(leaving, "notes", ALICE)
            await write(day, 1, 2)
            await day.settle(left, alice, calm)
        for turn, function in enumerate((SHOWING, HIDING, SHOWING, HIDING, SHOWING)):
            await write(day, *range(10 * turn + 10, 10 * turn + 15))
            await day.sql.execute(function)
            await write(day, *range(10 * turn + 15, 10 * turn + 20))
        await day.settle(alice, calm)
        assert set(alice.reasons) == {"rights_changed"}
        # Nothing is lost untold where no positions are kept, either.
        assert set(plain.reasons) | set(calm.reasons) <= {"rights_changed"}
        early = [number for number in plain.ids if number < 15]
        assert all(number % 2 for number in early)
        async with keeping(server) as back:
            again = await day.follow(back, "notes", ALICE, after=left)
            await day.settle(again)
            assert set(again.reasons) == {"rights_changed"}
