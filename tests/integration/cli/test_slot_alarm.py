"""Somebody is told before the slot is lost, or before it fills the disk."""

import asyncio
import math
from types import SimpleNamespace

import psycopg
import pytest
from structlog.testing import capture_logs

from fixtures.waiting import wait_until
from heliograph.cli import database_watch
from heliograph.config import Secret
from heliograph.core.replication.lsn import ZERO_LSN
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.embedded import EmbeddedOptions, EmbeddedPostgres
from heliograph.postgres.slot_limit import SlotLimit
from heliograph.server.metrics import Metrics
from heliograph.server.system_clock import SystemClock

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

MEGABYTE = 1024 * 1024


class IdleSource:
    """A reader that is not there."""

    def status(self):
        return SimpleNamespace(progress=ZERO_LSN)


async def test_a_slot_that_holds_back_half_of_what_it_may_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(database_watch, "DATABASE_LOOK_INTERVAL_S", 0.02)
    options = EmbeddedOptions(data_dir=tmp_path, settings={"max_slot_wal_keep_size": "64MB"})
    metrics = Metrics()

    def sample(name):
        return metrics.registry.get_sample_value(f"heliograph_slot_{name}_bytes")

    async with EmbeddedPostgres(options) as postgres:
        url = postgres.running.url.reveal()
        admin = AdminDatabase(url)
        await admin.open()
        watch = database_watch.DatabaseWatch(
            admin,
            IdleSource(),
            slot_name="quiet",
            slot_limit=SlotLimit(Secret(url), "quiet", 0),
            clock=SystemClock(),
        )
        watch.register(metrics)
        with capture_logs() as log, psycopg.connect(url, autocommit=True) as sql:

            def told():
                return [line["event"] for line in log]

            looking = asyncio.create_task(watch.run())
            await wait_until(lambda: sample("retained") == 0)
            assert math.isnan(sample("safe_wal"))
            sql.execute("select pg_create_logical_replication_slot('quiet', 'pgoutput')")
            await wait_until(lambda: sample("safe_wal") >= 64 * MEGABYTE)
            assert told() == []
            for _ in range(40):
                sql.execute("select pg_logical_emit_message(false, 'x', repeat('x', 1048576))")
            await wait_until(told)
            await wait_until(lambda: sample("safe_wal") < 40 * MEGABYTE)
            assert told() == ["slot_retains_much_wal"]
            assert log[0]["limit_bytes"] == 64 * MEGABYTE
            assert log[0]["retained_bytes"] > 32 * MEGABYTE
            sql.execute("select pg_drop_replication_slot('quiet')")
            await wait_until(lambda: len(told()) == 2)
            assert told()[1] == "slot_retains_less_wal"
            assert math.isnan(sample("safe_wal"))
            looking.cancel()
            await asyncio.wait([looking])
        await admin.close()
