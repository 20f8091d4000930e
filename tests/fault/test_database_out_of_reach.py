"""Links to PostgreSQL that are cut or freeze: what clients are told meanwhile and afterwards."""

import psycopg
import pytest

from fixtures.black_hole import black_hole
from fixtures.fault_stand import NOT_JUDGED, standing
from fixtures.restarted import restarted
from fixtures.server_process import slot_of
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]

CUTS = 3


async def test_connections_to_postgresql_that_are_cut_lose_nothing(postgres_url, tmp_path):
    """All of them at once, at any byte: the reader's, the judges', the catalog's."""
    slot = {"HELIOGRAPH_SLOT": slot_of(postgres_url)}
    async with (
        black_hole(postgres_url) as relay,
        restarted(relay.url, tmp_path, **slot) as running,
        standing(running, postgres_url) as stand,
    ):
        for number in range(CUTS):
            await stand.goes_on()
            accepted = relay.accepted
            relay.cut_after(1_000 + 777 * number)
            await wait_until(lambda accepted=accepted: relay.accepted > accepted, "a new link")
        await stand.goes_on()
    stand.assert_unbroken()
    assert {keeper.joins for keeper in stand.keepers} == {1}


async def test_back_pressure_beyond_the_senders_timeout_keeps_the_stream_and_loses_nothing(
    postgres_url, tmp_path
):
    """The catalog can not be read, so nothing is handed on and the reader has to pause."""
    slot, timeout_s = slot_of(postgres_url), 1
    direct = {"HELIOGRAPH_SLOT": slot, "HELIOGRAPH_REPLICATION_URL": postgres_url}
    async with (
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql,
        black_hole(postgres_url) as relay,
    ):
        name = postgres_url.rsplit("/", 1)[1]
        await sql.execute(f"alter database {name} set wal_sender_timeout = '{timeout_s}s'")
        async with (
            restarted(relay.url, tmp_path, **direct) as running,
            standing(running, postgres_url) as stand,
        ):
            await sql.execute("create table ballast (body text)")
            await sql.execute("alter publication supabase_realtime add table ballast")
            await stand.goes_on()
            relay.hold()
            # What follows waits until the table was read again.
            await sql.execute("alter table followed add column extra int")
            for _ in range(100):
                await sql.execute("insert into ballast values (repeat('x', 1048576))")
            first = await last_answer(sql, slot)

            async def is_beyond_the_timeout():
                return (await last_answer(sql, slot) - first).total_seconds() > 2 * timeout_s

            await wait_until(is_beyond_the_timeout, "two timeouts to pass")
            received = running.server.metrics()["heliograph_transactions_total"]
            await stand.writer.goes_on(20)
            assert running.server.metrics()["heliograph_transactions_total"] == received
            relay.release()
            await stand.goes_on()
            assert not any(line["event"] == "source_lost" for line in running.server.log())
        told = {reason for reasons in stand.reasons() for reason in reasons}
        # What was judged when the table changed is told as `table_changed`.
        assert told <= {"schema_changed", "table_changed", "rights_changed", *NOT_JUDGED}


async def last_answer(sql, slot):
    """Return when the reader of a slot has answered PostgreSQL for the last time."""
    query = (
        "select reply_time from pg_stat_replication"
        " join pg_replication_slots on active_pid = pid where slot_name = %s"
    )
    (answered_at,) = await (await sql.execute(query, (slot,))).fetchone()
    return answered_at
