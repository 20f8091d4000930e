"""What the default identity promises, change by change, against SELECT right after each commit.

Without FULL the old row is not known: every INSERT and UPDATE whose new version is seen is told,
leaves are not noticed, and of a DELETE the key goes to everybody or, with `strict`, to nobody.
"""

import random

import psycopg
import pytest

from fixtures.raw_client import connected
from oracle.single_writes import FILTERS, SCHEMA, USERS, join_all, one_write, row_seen

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


async def expected_of(reader, written, user, row_filter, *, deletes):
    kind, new_key, old_key = written
    _, condition, key_passes = row_filter
    if kind == "DELETE":
        return ("DELETE", {"id": old_key}) if deletes and key_passes(old_key) else None
    row = await row_seen(reader, user, condition, new_key)
    return None if row is None else (kind, row)


def told(client, topic):
    return [
        (change["type"], change["old_record" if change["type"] == "DELETE" else "record"])
        for change in client.changes(topic)
        if change["table"] == "notes"
    ]


@pytest.mark.security
@pytest.mark.parametrize("setting", ["auto", "strict", "compatible"])
async def test_versions_are_told_as_select_shows_them_and_nothing_else(start_server, setting):
    server = start_server(HELIOGRAPH_DELETE_VISIBILITY=setting)
    rng = random.Random(setting)
    server.sql(SCHEMA.format(*USERS))
    wanted = [(user, row_filter) for user in USERS for row_filter in FILTERS]
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as reader,
    ):
        await join_all(client, server, wanted)
        expected = await written_and_expected(sql, reader, rng, wanted, deletes=setting != "strict")
        for number, (user, row_filter) in enumerate(wanted):
            topic = str(number)
            await client.until(
                lambda topic=topic: any(c["table"] == "marks" for c in client.changes(topic))
            )
            assert told(client, topic) == expected[number], (user, row_filter[0])
            # Of an old row nobody learns more than the key.
            for change in client.changes(topic):
                assert set(change.get("old_record") or {}) <= {"id"}
        assert sum(map(len, expected)) > 100


async def written_and_expected(sql, reader, rng, wanted, *, deletes):
    """Write for a while; return what each of the wanted bindings is to be told of it."""
    expected = [[] for _ in wanted]
    for _ in range(80):
        written = await one_write(rng, sql)
        if written is None:
            continue
        for place, (user, row_filter) in enumerate(wanted):
            found = await expected_of(reader, written, user, row_filter, deletes=deletes)
            if found is not None:
                expected[place].append(found)
    await sql.execute("insert into marks values (1)")
    return expected
