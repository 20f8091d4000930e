"""A channel keeps its positions under a new token of the same user."""

import json

import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.raw_client import ALICE

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

NOTES = (
    "create table notes (id int primary key, owner uuid)",
    "alter table notes enable row level security",
    "create policy own on notes for select to authenticated using (owner = (select auth.uid()))",
    "grant select on notes to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes",
)


async def write(day, *numbers):
    for number in numbers:
        await day.sql.execute("insert into notes values (%s, %s)", (number, ALICE))


async def test_positions_go_on_under_a_new_token_of_the_same_user(server):
    async with day_of(server, *NOTES) as day, keeping(server) as client:
        follower = await day.follow(client, "notes", ALICE)
        await write(day, 1)
        await day.settle(follower)
        subscribed = client.systems(follower.topic).count(follower.joined)
        # Of its claims only one differs that says nothing about the user.
        token = server.token(ALICE, jti="another")
        name = f"realtime:{follower.topic}"
        payload = {"access_token": token}
        await client.socket.send(json.dumps([None, "9", name, "access_token", payload]))
        await client.until(
            lambda: client.systems(follower.topic).count(follower.joined) > subscribed
        )
        await write(day, 2, 3)
        await day.settle(follower)
        assert (follower.reasons, seen(follower)) == ([], [1, 2, 3])
        # And what was told under the new token is of use to whoever comes back with it.
        async with keeping(server) as other:
            await write(day, 4)
            back = await day.follow(other, "notes", ALICE, after=follower)
            await day.settle(back)
            assert back.reasons == []
