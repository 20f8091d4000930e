"""Looks at the database every few seconds: whether it answers, and how far the reader is behind.

What it finds is read by ``/ready`` and ``/metrics``, which never wait for the database themselves.
"""

import asyncio
from collections import deque

import structlog

from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.errors import UnavailableError
from heliograph.limits import (
    DATABASE_LOOK_INTERVAL_S,
    DATABASE_LOOK_TIMEOUT_S,
    DATABASE_LOOKS_KEPT_MAX,
)
from heliograph.ports.change_source import ChangeSource
from heliograph.ports.clock import Clock
from heliograph.postgres.admin import AdminDatabase
from heliograph.server.metrics import Metrics

_log = structlog.get_logger("heliograph.database")


class LagMeter:
    """How long ago the database was where the reader is now."""

    def __init__(self) -> None:
        """Begin without a look."""
        self._looks: deque[tuple[float, Lsn]] = deque(maxlen=DATABASE_LOOKS_KEPT_MAX)

    def look(self, database: Lsn, now_s: float) -> None:
        """Note where the database's WAL ended."""
        self._looks.append((now_s, database))

    def lag_s(self, reader: Lsn, now_s: float) -> float:
        """Return the seconds since the database went past the reader; 0 if it has not.

        As exact as the looks are close, and never more than the oldest one kept.
        """
        while self._looks and self._looks[0][1] <= reader:
            self._looks.popleft()
        return now_s - self._looks[0][0] if self._looks else 0.0


class DatabaseWatch:
    """One look after another while `run` runs."""

    def __init__(
        self, admin: AdminDatabase, source: ChangeSource, *, slot_name: str, clock: Clock
    ) -> None:
        """Look at the database of `admin`, from which `source` reads through `slot_name`."""
        self._admin = admin
        self._source = source
        self._slot_name = slot_name
        self._clock = clock
        self._meter = LagMeter()
        self._problem: str | None = None
        self._database = ZERO_LSN
        self._retained_bytes = 0

    def problem(self) -> str | None:
        """Return None if the last look was answered, else what was wrong."""
        return self._problem

    def register(self, metrics: Metrics) -> None:
        """Have ``/metrics`` show what was found."""
        metrics.bind_gauge(metrics.replication_lag_bytes, self._lag_bytes)
        metrics.bind_gauge(metrics.replication_lag_seconds, self._lag_s)
        metrics.bind_gauge(metrics.slot_retained_bytes, lambda: float(self._retained_bytes))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._note(await self._look())
            await asyncio.sleep(DATABASE_LOOK_INTERVAL_S)

    async def _look(self) -> str | None:
        """Ask once; return what was wrong."""
        try:
            async with asyncio.timeout(DATABASE_LOOK_TIMEOUT_S):
                found = await self._admin.slot_position(self._slot_name)
        except UnavailableError as error:
            return str(error)
        except TimeoutError:
            return f"the database did not answer within {DATABASE_LOOK_TIMEOUT_S:g} s"
        self._database = found.database
        self._retained_bytes = found.retained_bytes
        self._meter.look(found.database, self._clock.monotonic_s())
        return None

    def _note(self, problem: str | None) -> None:
        """Keep the answer; a change of it is worth a line in the log."""
        if problem is not None and self._problem is None:
            _log.warning("database_does_not_answer", problem=problem)
        elif problem is None and self._problem is not None:
            _log.info("database_answers_again")
        self._problem = problem

    def _lag_bytes(self) -> float:
        return float(max(0, self._database - self._source.status().progress))

    def _lag_s(self) -> float:
        return self._meter.lag_s(self._source.status().progress, self._clock.monotonic_s())
