"""Subscribers with as many filters as they may have, and with more."""

import json

import pytest

from fixtures.keeping import day_of, keeping
from fixtures.raw_client import ALICE, BOB, table
from heliograph import limits

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

FILTERS = limits.BINDINGS_PER_CHANNEL_MAX
TOPICS = limits.CHANNELS_PER_SOCKET_MAX
NOTES = (
    "create table notes (id int primary key, owner uuid, kind int, body text)",
    "alter table notes enable row level security",
    "create policy own on notes for select to authenticated using (owner = (select auth.uid()))",
    "grant select on notes to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes",
)


async def insert(day, first, last):
    """Write rows for Alice, one for each kind, in one transaction, and one for Bob."""
    await day.sql.execute(
        "insert into notes select g, %s, g, 'b' || g from generate_series(%s::int, %s::int) g",
        (ALICE, first, last),
    )
    await day.sql.execute("insert into notes values (%s, %s)", (first + 100_000, BOB))


def kinds(start, count, condition="kind=eq.{}"):
    return [
        table("notes", filter=condition.format(kind), positions=True)
        for kind in range(start, start + count)
    ]


async def test_a_thousand_filters_of_one_channel_cost_one_position_a_transaction(server):
    async with day_of(server, *NOTES) as day, keeping(server) as client, keeping(server) as other:
        bob = await day.follow(other, "notes", BOB)
        said = await client.join("many", server.token(ALICE), *kinds(0, FILTERS))
        assert said["message"] == "Subscribed to PostgreSQL"
        await client.until(lambda: client.marks("many"))
        told = len(client.marks("many"))
        for start in range(0, 10 * FILTERS // 10, FILTERS // 10):
            await insert(day, start, start + FILTERS // 10 - 1)
        await client.settled("many", FILTERS)
        assert client.ids("many") == list(range(FILTERS))
        # One behind each transaction, those of Bob included, and what idle channels are told.
        assert len(client.marks("many")) - told <= 30
        since = client.marks("many")[-1]
        await client.leave("many")
        await insert(day, FILTERS, FILTERS + 9)
        await day.sql.execute("insert into notes values (%s, %s, 7)", (FILTERS + 10, ALICE))
        entries = [{**entry, "since": since} for entry in kinds(0, FILTERS)]
        await client.join("many", server.token(ALICE), *entries)
        await client.until(lambda: FILTERS + 10 in client.ids("many"))
        assert client.resyncs("many") == bob.reasons == []
        await day.settle(bob)


async def test_a_thousand_filters_that_postgresql_judges_hold_up_nobody_else(server):
    async with day_of(server, *NOTES) as day, keeping(server) as client, keeping(server) as other:
        bob = await day.follow(other, "notes", BOB)
        await client.join("many", server.token(ALICE), *kinds(0, FILTERS, "body=match.^b{}$"))
        await insert(day, 0, 9)
        await day.settle(bob)
        # A statement for each filter: all in time, or told.
        await client.until(lambda: len(client.ids("many")) == 10 or client.resyncs("many"), 60)
        assert set(client.resyncs("many")) <= {"judgement_timeout"}


async def test_a_socket_has_its_filters_in_so_many_channels_and_more_is_refused_by_name(server):
    each = FILTERS // TOPICS
    async with day_of(server, *NOTES) as day, keeping(server) as client:
        for number in range(TOPICS - 1):
            said = await client.join(str(number), server.token(ALICE), *kinds(number * each, each))
            assert said["message"] == "Subscribed to PostgreSQL"
        most = limits.BINDINGS_BYTES_PER_CHANNEL_MAX
        long = "id=gt." + "1" * (most // 20)
        for topic, entries, bound in (
            ("many", kinds(0, FILTERS + 1), f"{FILTERS} entries"),
            ("long", kinds(0, 21, long + "{}"), f"{most} bytes"),
        ):
            text = f"InvalidJoinPayload: config.postgres_changes may have at most {bound}"
            await refused(client, topic, entries, text)
        await client.join("last", server.token(ALICE), table("notes"))
        await refused(client, "one more", kinds(0, 1), "ChannelRateLimitReached: Too many channels")
        await insert(day, 0, FILTERS - 1)
        for number in range(TOPICS - 1):
            await client.settled(str(number), each)
            assert client.ids(str(number)) == list(range(number * each, (number + 1) * each))


async def refused(client, topic, entries, text):
    payload = {"config": {"postgres_changes": entries}}
    await client.socket.send(json.dumps(["r", topic, f"realtime:{topic}", "phx_join", payload]))
    await client.until(lambda: any(frame[1] == topic for frame in client.frames))
    (reply,) = [frame[4] for frame in client.frames if frame[1] == topic]
    assert reply == {"status": "error", "response": {"reason": text}}
