"""A partitioned table with FULL identity of which one partition has DEFAULT, against SELECT.

What its rows are told as: `docs/topics/visibility.md`. Nobody learns of the end of a row that was
hidden from him, and what could not be told is told as `resync`.
"""

import random

import psycopg
import pytest

from fixtures.raw_client import connected
from oracle.single_writes import FILTERS, SCHEMA, USERS, join_all, one_write, row_seen

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio, pytest.mark.security]

#: Keys below it are in the partition that sends no more than the key.
FIRST_WHOLE = 6
PARTITIONED = SCHEMA.replace(
    "create table notes (id int primary key, org int, owner uuid, note text);",
    f"""create table notes (id int primary key, org int, owner uuid, note text)
          partition by range (id);
        alter table notes replica identity full;
        create table lesser partition of notes for values from (0) to ({FIRST_WHOLE});
        create table whole partition of notes for values from ({FIRST_WHOLE}) to (100);
        alter table whole replica identity full;
        alter publication supabase_realtime set (publish_via_partition_root = true);""",
)


async def seen_by(reader, user, row_filter, keys):
    """Return what a user's SELECT with the filter shows of some keys, as policies stand."""
    rows = {key: await row_seen(reader, user, row_filter[1], key) for key in keys}
    return {key: row for key, row in rows.items() if row is not None}


def expected_of(written, before, after, row_filter):
    """Return what is told of one write: changes as (type, row or old row), or ``resync``."""
    kind, new_key, old_key = written
    told = []
    moves = kind == "UPDATE" and (new_key < FIRST_WHOLE) != (old_key < FIRST_WHOLE)
    if kind == "DELETE" or moves:
        # PostgreSQL moves a row between partitions as a deletion and an insertion.
        if old_key >= FIRST_WHOLE:
            told += [("DELETE", before[old_key])] if old_key in before else []
        elif row_filter[2](old_key) or row_filter[0] not in {None, "id=lte.6"}:
            told.append("resync")
        if moves and new_key in after:
            # What could not be told of a transaction is told at its end.
            told.insert(0 if "resync" in told else len(told), ("INSERT", after[new_key]))
        return told
    if new_key in after:
        return [(kind, after[new_key])]
    if kind == "UPDATE" and old_key >= FIRST_WHOLE and old_key in before:
        return [("DELETE", {"id": old_key})]
    return []


def told(client, topic):
    """Return the changes, and each ``resync`` at its place among them."""
    found = []
    for _, _, frame_topic, event, payload in client.frames:
        if frame_topic != f"realtime:{topic}":
            continue
        if event == "system" and payload["status"] == "error":
            assert payload["message"] == "resync: undecidable"
            found.append("resync")
        elif event == "postgres_changes" and payload["data"]["table"] == "notes":
            data = payload["data"]
            found.append(
                (data["type"], data["old_record" if data["type"] == "DELETE" else "record"])
            )
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_rows_of_both_partitions_are_told_as_far_as_they_are_known(start_server, seed):
    server = start_server()
    rng = random.Random(seed)
    server.sql(PARTITIONED.format(*USERS))
    wanted = [(user, row_filter) for user in USERS for row_filter in FILTERS]
    expected = [[] for _ in wanted]
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as reader,
    ):
        await join_all(client, server, wanted)
        before = [{} for _ in wanted]
        for _ in range(80):
            written = await one_write(rng, sql)
            if written is None:
                continue
            for place, (user, row_filter) in enumerate(wanted):
                after = await seen_by(reader, user, row_filter, range(1, 11))
                expected[place] += expected_of(written, before[place], after, row_filter)
                before[place] = after
        await sql.execute("insert into marks values (1)")
        for number, (user, row_filter) in enumerate(wanted):
            topic = str(number)
            await client.until(
                lambda topic=topic: any(c["table"] == "marks" for c in client.changes(topic))
            )
            assert told(client, topic) == expected[number], (user, row_filter[0])
    assert any("resync" in one for one in expected)
    assert sum(map(len, expected)) > 100
