"""A table that policies read is taken out of the publication through which it was followed.

What changes in it while it is not followed is in no stream. So it is followed again, whoever keeps
positions is told that rights changed, and nothing is shown by a right that was granted later.
"""

import contextlib

import psycopg
import pytest

from fixtures.keeping import Day, keeping
from fixtures.raw_client import ALICE, stopped
from fixtures.server import run_server

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

SCHEMA = (
    "create table members (person uuid primary key)",
    "create table notes (id int primary key, owner uuid, body text)",
    "alter table notes enable row level security",
    (
        "create policy team on notes for select to authenticated"
        " using (exists (select from members m where m.person = (select auth.uid())))"
    ),
    "grant select on notes, members to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes, members",
    f"insert into members values ('{ALICE}')",
)
MADE_ANEW = (
    "drop publication supabase_realtime",
    "create publication supabase_realtime for table notes",
)

#: How it is taken out of the clients' publication.
LOSSES = {
    "taken out": ("alter publication supabase_realtime drop table members",),
    "left out": ("alter publication supabase_realtime set table notes",),
    # As the guides for Supabase have it, in a transaction.
    "made anew": MADE_ANEW,
    "not every operation": (
        "alter publication supabase_realtime set (publish = 'insert, update')",
    ),
}


@contextlib.asynccontextmanager
async def day_on(database_url, folder):
    """Run a server that finds both tables published when it starts."""
    connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with await connecting as sql:
        with run_server(database_url, folder):
            for statement in SCHEMA:
                await sql.execute(statement)
        with run_server(database_url, folder) as server:
            yield Day(server, sql)


async def take_out(day, statements):
    async with day.sql.transaction():
        for statement in statements:
            await day.sql.execute(statement)


def bodies(client):
    """Return what was told of rows, old ones too."""
    told = [frame[4]["data"] for frame in client.frames if frame[3] == "postgres_changes"]
    rows = [change.get(which) or {} for change in told for which in ("record", "old_record")]
    return {row.get("body") for row in rows}


async def assert_exact(day, follower):
    """Require that rights are followed: a revoked one is told, a later one shows nothing older."""
    await day.sql.execute("delete from members")
    await follower.client.until(lambda: follower.rows == {})
    with stopped(day.server):
        await day.sql.execute("insert into notes values (77, null, 'secret')")
        await day.sql.execute("update notes set body = 'open' where id = 77")
        await day.sql.execute(f"insert into members values ('{ALICE}')")
    await day.settle(follower)
    assert follower.rows[77]["body"] == "open"
    assert "secret" not in bodies(follower.client)


@pytest.mark.parametrize("how", LOSSES)
async def test_what_policies_read_is_followed_when_clients_may_not_any_more(
    postgres_url, tmp_path, how
):
    async with day_on(postgres_url, tmp_path) as day, keeping(day.server) as client:
        alice = await day.follow(client, "notes", ALICE)
        await day.settle(alice)
        await take_out(day, LOSSES[how])
        await client.until(lambda: "rights_changed" in alice.reasons)
        await day.settle(alice)
        await assert_exact(day, alice)
        assert day.server.metrics()["heliograph_dependencies_not_followed"] == 0


async def test_the_servers_own_publication_is_put_right(server):
    server.sql(*SCHEMA)
    connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
    async with await connecting as sql, keeping(server) as client:
        day = Day(server, sql)
        alice = await day.follow(client, "notes", ALICE)
        await day.settle(alice)
        await sql.execute(LOSSES["taken out"][0])
        await sql.execute("alter publication heliograph_dependencies drop table members")
        await client.until(lambda: "rights_changed" in alice.reasons)
        await day.settle(alice)
        await assert_exact(day, alice)


async def test_what_is_filtered_is_not_followed_and_said_to_be(postgres_url, tmp_path):
    """To follow it would lift the filter for clients, too."""
    async with day_on(postgres_url, tmp_path) as day, keeping(day.server) as client:
        alice = await day.follow(client, "notes", ALICE)
        await day.settle(alice)
        await day.sql.execute(
            "alter publication supabase_realtime"
            f" set table notes, members where (person <> '{ALICE}')"
        )
        await client.until(lambda: "rights_changed" in alice.reasons)
        await day.settle(alice)
        assert day.server.metrics()["heliograph_dependencies_not_followed"] == 1
        assert any(line["event"] == "dependency_not_followed" for line in day.server.log())


async def test_without_event_triggers_it_is_found_within_seconds(plain_url, tmp_path):
    async with day_on(plain_url, tmp_path) as day, keeping(day.server) as client:
        alice = await day.follow(client, "notes", ALICE)
        await day.settle(alice)
        await take_out(day, LOSSES["taken out"])
        await client.until(lambda: "rights_changed" in alice.reasons)
        await day.settle(alice)
        await assert_exact(day, alice)
