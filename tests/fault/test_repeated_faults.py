"""Five kinds of disaster, five times each under a steady writer: nothing is lost or comes twice.

Where what was missed can be sent again, every client goes on without a word. Where it can not, each
is told ``resync`` with the reason before anything later, loads, and is exact again.
"""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.fault_stand import standing
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.restarted import restarted
from fixtures.waiting import wait_until
from fixtures.without_reader import without_reader

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]

ROUNDS = 5


@contextlib.asynccontextmanager
async def standing_on(database_url, folder):
    """Have clients follow a server of the test's own."""
    async with (
        restarted(database_url, folder) as running,
        standing(running, database_url) as stand,
    ):
        yield stand


def assert_told(stand, reason, *others):
    """Require that every client was told the reason of every fault."""
    for told in stand.reasons():
        assert told.count(reason) == ROUNDS
        # What a user may see is not known in the new history before it was read again.
        assert set(told) <= {reason, "rights_changed", *others}


async def test_five_kills_of_the_server_lose_nothing(postgres_url, tmp_path, record_property):
    async with standing_on(postgres_url, tmp_path) as stand:
        for _ in range(ROUNDS):
            await stand.suffer(stand.running.kill)
    stand.report(record_property)
    assert not any(stand.reasons())
    assert min(keeper.joins for keeper in stand.keepers) == 1 + ROUNDS


async def test_five_kills_of_postgresql_in_mid_transaction_lose_nothing(tmp_path, record_property):
    with run_test_cluster(binaries_of(18)) as cluster:
        async with standing_on(cluster.create_database(), tmp_path) as stand:

            async def kill():
                await wait_until(lambda: stand.writer.is_amid, "an open transaction")
                cluster.kill()
                await asyncio.to_thread(cluster.start_again)

            for _ in range(ROUNDS):
                await stand.suffer(kill)
        stand.report(record_property)
        stand.assert_unbroken()


async def test_five_dropped_slots_are_told_and_every_state_is_exact_again(
    postgres_url, tmp_path, record_property
):
    async with (
        standing_on(postgres_url, tmp_path) as stand,
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql,
    ):

        async def drop():
            async with without_reader(stand.running.server, sql) as slot:
                await stand.writer.goes_on(20)
                await sql.execute("select pg_drop_replication_slot(%s)", (slot,))

        for _ in range(ROUNDS):
            await stand.suffer(drop)
    stand.report(record_property)
    assert_told(stand, "slot_recreated")


async def test_five_slots_whose_wal_is_gone_are_told_and_every_state_is_exact_again(
    tmp_path, record_property
):
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "1GB"}
    with run_test_cluster(binaries_of(18), settings) as cluster:
        database_url = cluster.create_database()
        async with (
            standing_on(database_url, tmp_path) as stand,
            await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sql,
        ):

            async def invalidate():
                async with without_reader(stand.running.server, sql) as slot:

                    async def is_lost():
                        await sql.execute("select pg_switch_wal()")
                        await stand.writer.goes_on()
                        await sql.execute("checkpoint")
                        query = "select wal_status from pg_replication_slots where slot_name = %s"
                        (status,) = await (await sql.execute(query, (slot,))).fetchone()
                        return status == "lost"

                    await wait_until(is_lost, "the slot to be lost")

            for _ in range(ROUNDS):
                await stand.suffer(invalidate)
        stand.report(record_property)
        assert_told(stand, "slot_recreated")


def dropping(stand, sql):
    """Return a function that drops the publication and makes it again."""

    async def drop():
        await sql.execute("drop publication supabase_realtime")
        await stand.writer.goes_on(20)
        await sql.execute("create publication supabase_realtime for table followed")

    return drop


async def test_five_dropped_publications_are_told_and_every_state_is_exact_again(
    postgres_cluster_16, make_database, tmp_path, record_property
):
    """Up to PostgreSQL 17 each costs the slot, which can not get past it."""
    database_url = make_database(postgres_cluster_16)
    async with (
        standing_on(database_url, tmp_path) as stand,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sql,
    ):
        for _ in range(ROUNDS):
            await stand.suffer(dropping(stand, sql))
    stand.report(record_property)
    assert_told(stand, "slot_recreated", "publication_changed")


async def test_a_publication_that_is_missing_for_a_while_is_told_where_its_slot_goes_on(
    postgres_url, tmp_path
):
    """From PostgreSQL 18 on nothing breaks: its tables are silent meanwhile."""
    async with (
        standing_on(postgres_url, tmp_path) as stand,
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql,
    ):
        await stand.suffer(dropping(stand, sql))
    for told in stand.reasons():
        assert told
        # The second if the catalog was not read before it was as before.
        assert set(told) <= {"publication_changed", "rights_changed"}
