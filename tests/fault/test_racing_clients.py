"""Clients that join and leave faster than they are answered, or read slower than they are told."""

import itertools
import json
import random

import psycopg
import pytest
import websockets

from fixtures.raw_client import table
from fixtures.resuming import following
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]

TABLE = (
    "create table w (id int primary key, filler text, written int generated always as identity)",
    "alter publication supabase_realtime add table w",
)

EVENT = "postgres_changes"
TOPICS = 12
TURNS = 6


async def first_position(server):
    """Follow the table for one row; return the position behind it."""
    async with following(server) as client:
        await client.follow("w", server.service_role_key)
        server.sql("insert into w (id) values (0)")
        return await client.settled("w", 1)


class Hasty:
    """One socket that joins and leaves topics without waiting for answers."""

    def __init__(self, client, token, since):
        self._client = client
        self._refs = map(str, itertools.count(1_000))
        asked = table("w", positions=True, since=since)
        self._join = {"config": {"postgres_changes": [asked]}, "access_token": token}
        #: Topic -> ref of the join that was not left again.
        self.joined = {}
        #: Refs of joins -> refs of their leaves.
        self.left = {}

    async def turn(self, topic):
        """Join, or leave what was joined."""
        ref = next(self._refs)
        join_ref = self.joined.pop(topic, None)
        if join_ref is None:
            self.joined[topic] = ref
            message = [ref, ref, f"realtime:{topic}", "phx_join", self._join]
        else:
            self.left[join_ref] = ref
            message = [join_ref, ref, f"realtime:{topic}", "phx_leave", {}]
        await self._client.socket.send(json.dumps(message))

    def ids(self):
        """Return the ids of the rows that came for each join; nothing comes for one that is left.

        Frames with changes name only their topic, so that what came for whom is known by the order.
        """
        found = {ref: [] for ref in (*self.joined.values(), *self.left)}
        listening = {}
        leaves = set(self.left.values())
        for join_ref, ref, topic, event, said in self._client.frames:
            if event == "phx_reply" and ref in leaves:
                listening.pop(topic, None)
            elif event == "phx_reply" and said["status"] == "ok":
                listening[topic] = join_ref
            elif event == EVENT:
                found[listening[topic]].append(said["data"]["record"]["id"])
            elif event == "system":
                assert topic in listening
        return found

    def is_answered(self, ref):
        """Tell whether a message was replied to."""
        return any(frame[1] == ref and frame[3] == "phx_reply" for frame in self._client.frames)


@pytest.mark.parametrize("seed", range(2))
async def test_leaves_that_race_with_joins_and_replays_leave_no_ghosts(server, seed):
    """Every join goes on at a position, so that it is left at any moment of being caught up."""
    server.sql(*TABLE)
    since = await first_position(server)
    server.sql("insert into w (id) select generate_series(1, 500)")
    chance = random.Random(seed)
    turns = [f"t{number}" for number in range(TOPICS)] * TURNS
    # Some end joined.
    turns += [f"t{number}" for number in range(TOPICS) if chance.random() < 0.5]
    chance.shuffle(turns)
    async with following(server) as client:
        hasty = Hasty(client, server.service_role_key, since)
        for number, topic in enumerate(turns):
            await hasty.turn(topic)
            if chance.random() < 0.3:
                server.sql(f"insert into w (id) values ({1_000 + number})")
                left = list(hasty.left.values())[-1:]
                await client.until(lambda left=left: all(map(hasty.is_answered, left)))
        await client.until(lambda: all(map(hasty.is_answered, hasty.left.values())))
        server.sql("insert into w (id) values (9999)")
        await client.until(
            lambda: all(hasty.ids()[ref][-1:] == [9_999] for ref in hasty.joined.values())
        )
        assert server.metrics()["heliograph_subscriptions"] == len(hasty.joined)
        with psycopg.connect(server.database_url) as sql:
            query = "select id from w where id > 0 order by written"
            written = [row[0] for row in sql.execute(query)]
        for join_ref, ids in hasty.ids().items():
            assert ids == (written if join_ref in hasty.joined.values() else written[: len(ids)])


async def test_a_slow_client_is_closed_and_goes_on_where_it_was(start_server):
    server = start_server(HELIOGRAPH_WRITE_DEADLINE_S="0.3")
    server.sql(*TABLE)
    since = await first_position(server)
    rows = 10_000

    def is_closed():
        return server.metrics().get('heliograph_closes_total{code="3008",reason="slow_consumer"}')

    with pytest.raises(websockets.ConnectionClosedError):
        async with following(server) as client:
            await client.follow("w", server.service_role_key, since=since)
            client.socket.transport.pause_reading()
            for first in range(1, rows, 500):
                server.sql(
                    "insert into w (id, filler) select n, repeat('x', 1000)"
                    f" from generate_series({first}, {first + 499}) n"
                )
            await wait_until(is_closed, "the server to close it")
            client.socket.transport.resume_reading()
            await client.socket.wait_closed()
    frames = [frame for frame in client.frames if frame[2] == "realtime:w"]
    marks = [place for place, frame in enumerate(frames) if "position" in (frame[4] or {})]
    handed_on = [
        frame[4]["data"]["record"]["id"] for frame in frames[: marks[-1]] if frame[3] == EVENT
    ]
    assert handed_on == list(range(1, len(handed_on) + 1))
    assert len(handed_on) < rows
    async with following(server) as client:
        await client.follow("w", server.service_role_key, since=frames[marks[-1]][4]["position"])
        await client.settled("w", rows - len(handed_on))
        assert client.ids("w") == list(range(len(handed_on) + 1, rows + 1))
        assert client.resyncs("w") == []
