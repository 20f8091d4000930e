"""Databases whose history is another one than clients have seen, and positions at the borders.

Restored from a backup, failed over to a standby that lacks the last changes, and with a log whose
positions pass from one half of 32 bits to the next.
"""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.fault_stand import NOT_JUDGED, FaultStand, make_tables, standing
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.restarted import restarted
from fixtures.waiting import wait_until
from heliograph.core.replication.lsn import parse_lsn

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]


@contextlib.asynccontextmanager
async def followed_cluster(folder):
    """Run a cluster of the test's own, a server on it and clients that follow."""
    with run_test_cluster(binaries_of(18)) as cluster:
        database_url = cluster.create_database()
        async with restarted(database_url, folder) as running:
            await make_tables(database_url)
            stand = FaultStand(running, database_url, seed=1)
            async with contextlib.AsyncExitStack() as following:
                for keeper in stand.keepers:
                    await following.enter_async_context(keeper.running())
                yield cluster, stand


async def check_new_history(stand, reason):
    """Require that everybody was told, has the rows of the new history, and follows it."""
    await wait_until(
        lambda: all(reason in told for told in stand.reasons()), f"everybody to be told {reason}"
    )
    for told in stand.reasons():
        assert set(told) <= {reason, "rights_changed", *NOT_JUDGED}
    with psycopg.connect(stand.database_url, autocommit=True) as sql:
        for keeper in stand.keepers:
            row = 1_000_000 + stand.keepers.index(keeper)
            owner = keeper.viewer.owner
            sql.execute("insert into followed values (%s, %s, 0)", (row, owner))
            await wait_until(lambda keeper=keeper, row=row: row in keeper.rows, "a live row")
    for keeper in stand.keepers:

        async def is_exact(keeper=keeper):
            return keeper.rows == (await keeper.viewer.select(stand.database_url))[1]

        await wait_until(is_exact, "the rows of every client to be those of the database")


async def test_a_restored_database_is_told_and_nobody_keeps_what_is_gone(tmp_path):
    async with followed_cluster(tmp_path) as (cluster, stand):
        async with stand.writer.running():
            await stand.goes_on()
        await asyncio.to_thread(cluster.stop)
        saved = await asyncio.to_thread(cluster.save)
        await asyncio.to_thread(cluster.start_again)
        async with stand.writer.running():
            await stand.goes_on()
        stand.assert_unbroken()
        await asyncio.to_thread(cluster.stop)
        cluster.replace_data(saved)
        await asyncio.to_thread(cluster.start_again)
        await check_new_history(stand, "database_behind")


async def test_a_promoted_standby_without_the_last_changes_is_told_and_nobody_keeps_them(tmp_path):
    async with followed_cluster(tmp_path) as (cluster, stand):
        folder = cluster.data_dir.with_name("standby")
        async with stand.writer.running():
            await stand.goes_on()
            with contextlib.ExitStack() as stack:
                await asyncio.to_thread(stack.enter_context, cluster.standby(folder))
                await stand.goes_on()
            # The standby is down by now: this is lost with the primary.
            await stand.goes_on()
        assert not any(stand.reasons())
        cluster.kill()

        def promote():
            with cluster.standby(folder) as url, psycopg.connect(url, autocommit=True) as sql:
                assert sql.execute("select pg_promote()").fetchone() == (True,)
            cluster.replace_data(folder)
            cluster.start_again()

        await asyncio.to_thread(promote)
        await check_new_history(stand, "history_changed")


BORDERS = {"32 bits": (0x1_0000_0000, "0000000100000000000000FF")}
BORDERS["63 bits"] = (1 << 63, "000000017FFFFFFF000000FF")


@pytest.mark.parametrize("border", BORDERS)
async def test_positions_that_pass_a_border_of_bits_keep_their_order(border, tmp_path):
    passed, segment = BORDERS[border]
    with run_test_cluster(binaries_of(18)) as cluster:
        database_url = cluster.create_database()
        await asyncio.to_thread(cluster.stop)
        cluster.run_program("pg_resetwal", "-l", segment, "-D", str(cluster.data_dir))
        await asyncio.to_thread(cluster.start_again)
        async with (
            restarted(database_url, tmp_path) as running,
            standing(running, database_url) as stand,
            await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sql,
        ):

            async def position():
                (text,) = await (await sql.execute("select pg_current_wal_lsn()::text")).fetchone()
                return parse_lsn(text)

            await stand.goes_on()
            assert await position() < passed
            await sql.execute("select pg_switch_wal()")
            await stand.goes_on()
            assert await position() >= passed
            # From the slot on the other side of the border.
            await running.kill()
            await stand.goes_on()
        assert not any(stand.reasons())
