"""A slot that holds back too much WAL (S35): the disk is spared, and clients are told."""

import psycopg
import pytest

from fixtures.fault_stand import standing
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.restarted import restarted
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]

MEGABYTE = 1024 * 1024
LIMIT = 64 * MEGABYTE


async def retained_bytes(sql):
    """Return how much WAL the slot holds back; more than its limit if there is none."""
    query = "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) from pg_replication_slots"
    row = await (await sql.execute(query)).fetchone()
    return LIMIT + 1 if row is None else row[0]


async def wal_bytes(sql):
    """Return the size of all WAL files after a checkpoint."""
    await sql.execute("checkpoint")
    (size,) = await (await sql.execute("select sum(size) from pg_ls_waldir()")).fetchone()
    return size


@pytest.mark.security
async def test_a_slot_beyond_our_limit_is_dropped_and_every_state_is_exact_again(tmp_path):
    """A transaction that is open for long holds it back, whatever the reader does."""
    with run_test_cluster(
        binaries_of(18), {"min_wal_size": "32MB", "max_wal_size": "32MB"}
    ) as cluster:
        database_url = cluster.create_database()
        async with (
            restarted(database_url, tmp_path, HELIOGRAPH_SLOT_WAL_BYTES_MAX=str(LIMIT)) as running,
            standing(running, database_url) as stand,
            await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sql,
            await psycopg.AsyncConnection.connect(database_url) as long,
        ):

            def said(event):
                return [line for line in running.server.log() if line["event"] == event]

            await stand.goes_on()
            await long.execute("create table never (id int)")

            while await retained_bytes(sql) <= LIMIT:
                await sql.execute(
                    "select pg_logical_emit_message(false, 'x', repeat('x', 1048576))"
                    " from generate_series(1, 10)"
                )
            dropped = await wait_until(lambda: said("slot_dropped"), "the slot to be dropped")
            assert dropped[0]["limit_bytes"] == LIMIT
            assert dropped[0]["retained_bytes"] > LIMIT
            assert said("slot_retains_much_wal")
            await long.rollback()
            await stand.goes_on()
            assert await wal_bytes(sql) < LIMIT
            assert running.server.metrics()["heliograph_slots_dropped"] == len(said("slot_dropped"))
        for told in stand.reasons():
            assert told.count("slot_recreated") == len(said("slot_dropped"))
            assert set(told) <= {"slot_recreated", "rights_changed"}
