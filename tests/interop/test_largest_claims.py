"""Tokens as large as they may be: joined with, judged by, gone on with; and one byte larger."""

import json

import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.raw_client import ALICE, BOB, table
from heliograph.limits import TOKEN_BYTES_MAX

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

#: A row is shown to whose claims hold its words, the last of them included.
NOTES = (
    "create table notes (id int primary key, owner uuid, words int default 1)",
    "alter table notes enable row level security",
    (
        "create policy own on notes for select to authenticated using"
        " (owner = auth.uid() and words <= jsonb_array_length(auth.jwt() -> 'words'))"
    ),
    "grant select on notes to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes",
)


def token_of_bytes(server, size):
    """Sign a token of exactly so many bytes; return it and the number of its words."""
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        token = server.token(ALICE, words=["ü"] * middle)
        low, high = (middle, high) if len(token) <= size else (low, middle - 1)
    for padding in range(20):
        token = server.token(ALICE, words=["ü"] * low, padding="x" * padding)
        if len(token) == size:
            return token, low
        token = server.token(ALICE, words=["ü"] * (low - 2), padding="x" * padding)
        if len(token) == size:
            return token, low - 2
    raise AssertionError(f"no token has {size} bytes")


async def test_the_largest_token_is_judged_by_and_one_byte_more_costs_its_channel_only(server):
    token, words = token_of_bytes(server, TOKEN_BYTES_MAX)
    larger, _ = token_of_bytes(server, TOKEN_BYTES_MAX + 1)
    assert words > 500
    async with day_of(server, *NOTES) as day, keeping(server) as other:
        bob = await day.follow(other, "notes", BOB, token=server.token(BOB, words=["a"]))
        async with keeping(server) as client:
            follower = await day.follow(client, "notes", ALICE, token=token)
            await day.sql.execute(
                "insert into notes values (1, %s, %s), (2, %s, %s)",
                (ALICE, words, ALICE, words + 1),
            )
            await client.until(lambda: seen(follower) == [1])
            await client.settled(follower.topic, 1)
        await day.sql.execute("insert into notes values (3, %s, %s)", (ALICE, words))
        await day.sql.execute("insert into notes values (4, %s)", (BOB,))
        async with keeping(server) as client:
            back = await day.follow(client, "notes", ALICE, token=token, after=follower)
            await client.until(lambda: seen(back) == [3])
            assert back.reasons == bob.reasons == []
        await other.until(lambda: seen(bob) == [4])
        await refused_and_closed(day, token, larger)


async def refused_and_closed(day, largest, larger):
    server = day.server
    async with keeping(server) as client:
        follower = await day.follow(client, "notes", ALICE, token=largest)
        other = await day.follow(client, "notes", ALICE, token=server.token(ALICE, words=["a"]))
        payload = {"access_token": larger, "config": {"postgres_changes": [table("notes")]}}
        await client.socket.send(json.dumps(["x", "x", "realtime:x", "phx_join", payload]))
        await client.until(lambda: any(frame[1] == "x" for frame in client.frames))
        (reply,) = [frame for frame in client.frames if frame[1] == "x"]
        assert reply[4] == {
            "status": "error",
            "response": {"reason": "MalformedJWT: The token provided is not a valid JWT"},
        }
        name = f"realtime:{follower.topic}"
        payload = {"access_token": larger}
        await client.socket.send(json.dumps([None, "y", name, "access_token", payload]))
        await client.until(lambda: follower.is_closed)
        assert follower.errors == ["The token provided is not a valid JWT"]
        await day.sql.execute("insert into notes values (5, %s)", (ALICE,))
        await client.until(lambda: seen(other) == [5])
        assert not other.is_closed
