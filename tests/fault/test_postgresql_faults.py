"""PostgreSQL stopped, killed, out of connections or without room for WAL under a whole server."""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.raw_client import ALICE
from fixtures.server import run_server
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.fault, pytest.mark.asyncio]

TABLES = (
    "create table notes (id int primary key, owner uuid, body text)",
    "alter table notes enable row level security",
    "create policy own on notes for select to authenticated using (owner = (select auth.uid()))",
    "grant select on notes to authenticated",
    "create table w (id int primary key, owner uuid, body text)",
    "alter table notes replica identity full",
    "alter table w replica identity full",
    "alter publication supabase_realtime add table notes, w",
)
SETTINGS = {"max_connections": "30", "superuser_reserved_connections": "3"}


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL to break, with few connections."""
    with run_test_cluster(binaries_of(18), SETTINGS) as broken:
        yield broken


@contextlib.asynccontextmanager
async def followed(cluster, folder):
    """A judged user and one who is not, connected, with positions and without; and one away."""
    with run_server(cluster.create_database(), folder) as server:
        async with day_of(server, *TABLES) as day, keeping(server) as client:
            here = [
                await day.follow(client, name, user, positions=kept)
                for name, user in (("notes", ALICE), ("w", None))
                for kept in (True, False)
            ]
            async with keeping(server) as leaving:
                left = await day.follow(leaving, "notes", ALICE)
                await write(day.sql, 1)
                await day.settle(left, *here)
            yield day, here, left
            await day.sql.close()


async def write(sql, *numbers):
    for number in numbers:
        await sql.execute("insert into notes values (%s, %s)", (number, ALICE))
        await sql.execute("insert into w values (%s)", (number,))


async def reopen(day):
    """Connect the day's own session again."""
    await day.sql.close()

    async def connect():
        with contextlib.suppress(psycopg.OperationalError):
            day.sql = await psycopg.AsyncConnection.connect(
                day.server.database_url, autocommit=True
            )
            return True

    await wait_until(connect, "PostgreSQL to let us in")


async def goes_on(day, here, left, last):
    """Nobody misses anything, and nobody is told anything else."""
    async with keeping(day.server) as client:
        back = await day.follow(client, "notes", ALICE, after=left)
        await day.settle(back, *here)
        for follower in (back, *here):
            assert follower.reasons == [], follower.topic
            expected = list(range(1, last + 1))
            assert [number for number in seen(follower) if number > 1] == expected[1:]


@pytest.mark.parametrize("how", ["stop_fast", "kill"])
async def test_postgresql_that_is_restarted_or_killed_costs_nothing(cluster, tmp_path, how):
    async with followed(cluster, tmp_path) as (day, here, left):
        await write(day.sql, 2, 3)
        assert await asyncio.to_thread(getattr(cluster, how)) is not False, "it does not stop"
        await asyncio.to_thread(cluster.start_again)
        await reopen(day)
        await write(day.sql, 4, 5)
        await goes_on(day, here, left, 5)
