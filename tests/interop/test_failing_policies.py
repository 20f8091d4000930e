"""Policies that raise, recurse or take too long, for who keeps positions: live, and in a replay.

What a policy can not answer is shown to nobody; the rest comes, or `resync` is told (law 4).
"""

import contextlib

import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.raw_client import ALICE, BOB
from fixtures.waiting import wait_until

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

#: The body of a row says what its policy does to whoever owns it, while the server judges.
SCHEMA = (
    "create table notes (id int primary key, owner uuid, body text)",
    """
    create function deeper(n int) returns int language plpgsql stable as
      $$ begin return public.deeper(n + 1); end $$
    """,
    """
    create function fine(body text) returns bool language plpgsql stable as $$ begin
      if current_setting('application_name') = 'heliograph_judge' then
        case body
          when 'raise' then raise exception 'no';
          when 'divide' then return 1 / (length(body) - 6) > 0;
          when 'recurse' then return public.deeper(1) > 0;
          when 'sleep' then perform pg_sleep(60);
          else null;
        end case;
      end if;
      return true;
    end $$
    """,
    "alter table notes enable row level security",
    (
        "create policy own on notes for select to authenticated"
        " using (case when owner = auth.uid() then fine(body) else false end)"
    ),
    "grant select on notes to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes",
)
RAISING = ("raise", "divide", "recurse")


async def write(day, *rows, owner=ALICE):
    for number, body in rows:
        await day.sql.execute("insert into notes values (%s, %s, %s)", (number, owner, body))


@contextlib.asynccontextmanager
async def notes_of_both(server):
    """Follow notes as Alice and as Bob, each with positions and without; Alice goes away, too."""
    async with day_of(server, *SCHEMA) as day, keeping(server) as client:
        alice, plain = [
            await day.follow(client, "notes", ALICE, positions=k) for k in (True, False)
        ]
        bobs = [await day.follow(client, "notes", BOB, positions=k) for k in (True, False)]
        async with keeping(server) as leaving:
            left = await day.follow(leaving, "notes", ALICE)
            await write(day, (1, "first"))
            await day.settle(left, alice, plain)
        yield day, (alice, plain), left, bobs


async def test_rows_for_which_a_policy_raises_are_missing_until_it_does_not(server):
    async with notes_of_both(server) as (day, here, left, bobs):
        for number, body in enumerate(RAISING):
            await write(day, (10 * number + 2, "good"), (10 * number + 3, body))
            await write(day, (10_000 + number, "x"), owner=BOB)
        await write(day, (50, "last"))
        good = [2, 12, 22, 50]
        async with keeping(server) as client:
            back = await day.follow(client, "notes", ALICE, after=left)
            for follower in (*here, back):
                await follower.client.until(lambda f=follower: 50 in f.rows)
                assert [number for number in seen(follower) if number > 1] == good
                assert follower.reasons == []
            # Nothing is wrong with the rows that SELECT shows as soon as no policy raises.
            await day.sql.execute(
                "update notes set body = 'good' where body = any(%s)", (list(RAISING),)
            )
            await day.settle(*here, back, *bobs)
        for follower in bobs:
            assert (follower.reasons, seen(follower)) == ([], [10_000, 10_001, 10_002])
        logged = [line for line in server.log() if line["event"] == "row_denied_by_error"]
        assert sorted(line["sqlstate"] for line in logged) == ["22012", "54001", "P0001"]
        assert server.metrics()['heliograph_row_errors_total{sqlstate_class="P0"}'] >= 2


async def test_a_policy_that_takes_too_long_ends_a_replay_with_resync(server):
    """However much of it is left: nothing is judged any more for who has been told."""
    async with notes_of_both(server) as (day, here, left, bobs):
        for follower in here:
            await follower.client.leave(follower.topic)
        await write(day, (2, "good"))
        # Transactions too large to be judged together, and each takes too long.
        for number in range(1, 61):
            await day.sql.execute(
                "insert into notes select g, %s, 'sleep' from generate_series(%s::int, %s::int) g",
                (ALICE, 1_000 * number, 1_000 * number + 250),
            )
        await write(day, (10, "x"), owner=BOB)
        async with keeping(server) as client:
            back = await day.follow(client, "notes", ALICE, after=left)
            await client.until(lambda: back.reasons)
            assert back.reasons == ["judgement_timeout"]
            await day.settle(back, *bobs)
            # And live.
            await write(day, (3, "sleep"))
            await client.until(lambda: len(back.reasons) == 2)
            assert back.reasons == ["judgement_timeout"] * 2
            await day.settle(back, *bobs)
        for follower in bobs:
            assert (follower.reasons, seen(follower)) == ([], [10])


async def test_policies_that_recurse_show_nothing_until_they_are_repaired(server):
    recursive = (
        "alter policy own on notes using (exists (select from notes n where n.id = notes.id))"
    )
    repaired = "alter policy own on notes using (owner = auth.uid())"
    async with notes_of_both(server) as (day, here, left, bobs):
        alice, plain = here
        await day.sql.execute(recursive)
        await alice.client.until(lambda: "rights_changed" in alice.reasons)
        await write(day, (2, "x"))
        await write(day, (10, "x"), owner=BOB)

        def denied():
            return [x for x in server.log() if x["event"] == "row_denied_by_error"]

        await wait_until(denied, "the rows to be denied")
        assert {line["sqlstate"] for line in denied()} == {"42P17"}
        async with keeping(server) as client:
            refused = await day.follow(client, "notes", ALICE, after=left)
            assert refused.errors[0].startswith("Unable to subscribe to changes with given")
            await wait_until(
                lambda: any(x["event"] == "policies_not_usable" for x in server.log()),
                "the refusal to be logged",
            )
            told = {follower: len(follower.reasons) for follower in (alice, bobs[0])}
            await day.sql.execute(repaired)
            for follower, count in told.items():
                await follower.client.until(lambda f=follower, n=count: len(f.reasons) > n)
            back = await day.follow(client, "notes", ALICE, after=left)
            await day.settle(alice, back, bobs[0])
            assert set(back.reasons) == {"rights_changed"}
        for follower in (*here, *bobs):
            assert {2, 10}.isdisjoint(seen(follower))
        assert set(plain.reasons) <= {"rights_changed"}
