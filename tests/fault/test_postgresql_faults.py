"""PostgreSQL stopped, killed, out of connections or without room for WAL under a whole server."""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.raw_client import ALICE
from fixtures.serve_process import environment, refused
from fixtures.server import run_server
from fixtures.waiting import wait_until
from fixtures.without_reader import without_reader

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
async def followed(cluster, folder, **settings):
    """A judged user and one who is not, connected, with positions and without; and one away."""
    with run_server(cluster.create_database(), folder, **settings) as server:
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


async def goes_on(day, here, left, last, *, was_away=False):
    """Nobody misses anything, and nobody is told anything else.

    Args:
        was_away: Whether PostgreSQL was: then what was to be judged meanwhile may be told `resync`.
    """
    async with keeping(day.server) as client:
        back = await day.follow(client, "notes", ALICE, after=left)
        await day.settle(back, *here)
        for follower in (back, *here):
            if was_away and follower.user is not None and follower.reasons:
                assert set(follower.reasons) == {"judgement_unavailable"}, follower.topic
                continue
            assert follower.reasons == [], follower.topic
            expected = list(range(1, last + 1))
            assert [number for number in seen(follower) if number > 1] == expected[1:]


async def test_postgresql_that_is_restarted_or_killed_costs_nothing(cluster, tmp_path):
    async with followed(cluster, tmp_path) as (day, here, left):
        await write(day.sql, 2, 3)
        assert await asyncio.to_thread(cluster.stop_fast), "it waits for its reader"
        await asyncio.to_thread(cluster.start_again)
        await reopen(day)
        await write(day.sql, 4, 5)
        await asyncio.to_thread(cluster.kill)
        await asyncio.to_thread(cluster.start_again)
        await reopen(day)
        await write(day.sql, 6, 7)
        await goes_on(day, here, left, 7, was_away=True)


@pytest.fixture(scope="module")
def hoarder(cluster):
    """URL of somebody who takes the connections that are left."""
    with psycopg.connect(cluster.url(), autocommit=True) as sql:
        sql.execute("create role hoarder login")
    return cluster.url(user="hoarder")


@contextlib.contextmanager
def no_connection_left(cluster, hoarder):
    """Take every connection that is not for superusers, those of the judge first."""
    with contextlib.ExitStack() as stack:
        sql = stack.enter_context(psycopg.connect(cluster.url(), autocommit=True))
        for _ in range(2):
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(hoarder))
            sql.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where application_name = 'heliograph_judge'"
            )
        yield


async def test_without_a_connection_left_who_must_be_asked_about_waits_and_misses_nothing(
    cluster, hoarder, tmp_path
):
    # A join waits five times as long for a connection.
    sooner = {"HELIOGRAPH_JUDGEMENT_TIMEOUT_S": "0.5"}
    async with (
        followed(cluster, tmp_path, **sooner) as (day, here, left),
        keeping(day.server) as client,
    ):
        with no_connection_left(cluster, hoarder):
            await write(day.sql, 2, 3)
            # Of these nobody has to be asked.
            for follower in here[2:]:
                await follower.client.until(lambda f=follower: 3 in f.ids)
            waiting = await day.follow(client, "notes", ALICE, after=left)
            # Nothing, if the policies were tried for somebody else a moment ago.
            assert waiting.errors in (
                [],
                ["no judging connection was free in time; the server tries again in 5 seconds"],
            )
            assert all(3 not in follower.ids for follower in here[:2])
            code, said = refused(environment(hoarder))
            assert code != 0
            assert "remaining connection slots are reserved" in said
        await client.until(lambda: waiting.is_placed)
        await day.settle(waiting)
        assert seen(waiting) == [2, 3]
        await goes_on(day, here, left, 3)


@contextlib.contextmanager
def full_disk(cluster):
    """Let PostgreSQL begin no further file of WAL, as on a disk without room."""
    folder = cluster.data_dir / "pg_wal"
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


async def test_a_disk_without_room_for_wal_stops_postgresql_and_costs_nothing_else(
    cluster, tmp_path
):
    async with followed(cluster, tmp_path) as (day, here, left):
        last = 1

        async def is_full():
            nonlocal last
            try:
                async with asyncio.timeout(5):
                    await write(day.sql, last + 1)
                    last += 1
                    await day.sql.execute("select pg_switch_wal()")
            except (psycopg.Error, TimeoutError):
                return True
            return False

        with full_disk(cluster):
            await wait_until(is_full, "the disk to be full")
            await asyncio.to_thread(cluster.kill_what_lives)
        await asyncio.to_thread(cluster.start_again)
        await reopen(day)
        # What was not answered may have been committed.
        ((last,),) = await (
            await day.sql.execute("select max(id) from w where id < 1000")
        ).fetchall()
        await day.sql.execute("insert into w values (%s) on conflict do nothing", (last,))
        await goes_on(day, here, left, last, was_away=True)


async def test_a_slot_that_may_keep_no_more_wal_is_told_and_made_anew(cluster, tmp_path):
    async with followed(cluster, tmp_path) as (day, here, left):
        async with without_reader(day.server, day.sql) as slot:
            await write(day.sql, 2)
            for name, size in (("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB")):
                await day.sql.execute(f"alter system set {name} = '{size}'")
            await day.sql.execute("select pg_reload_conf()")

            async def is_lost():
                await day.sql.execute("select pg_switch_wal()")
                await day.sql.execute("insert into w values ((select max(id) + 1 from w))")
                await day.sql.execute("checkpoint")
                query = "select wal_status from pg_replication_slots where slot_name = %s"
                return (await (await day.sql.execute(query, (slot,))).fetchall()) == [("lost",)]

            await wait_until(is_lost, "the slot to be lost")
            await day.sql.execute("alter system reset max_slot_wal_keep_size")
            await day.sql.execute("select pg_reload_conf()")
        for follower in here:
            await follower.client.until(lambda f=follower: f.reasons)
            assert follower.reasons[0] == "slot_recreated"
        async with keeping(day.server) as client:
            back = await day.follow(client, "notes", ALICE, after=left)
            await client.until(lambda: back.reasons)
            assert back.reasons == ["epoch_changed"]
            await day.settle(back, *here)
