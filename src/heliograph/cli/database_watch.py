"""Looks at the database every few seconds: whether it answers, and how far the reader is behind.

What it finds is read by ``/ready`` and ``/metrics``, which never wait for the database themselves.
"""

import asyncio
import math
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
from heliograph.postgres.admin import AdminDatabase, SlotPosition
from heliograph.postgres.slot_limit import SlotLimit
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
        self,
        admin: AdminDatabase,
        source: ChangeSource,
        *,
        slot_name: str,
        slot_limit: SlotLimit,
        clock: Clock,
    ) -> None:
        """Look at the database of `admin`, from which `source` reads through `slot_name`."""
        self._admin = admin
        self._source = source
        self._slot_name = slot_name
        self._slot_limit = slot_limit
        self._clock = clock
        self._meter = LagMeter()
        self._problem: str | None = None
        self._slot = SlotPosition(ZERO_LSN, 0, None, None)

    def problem(self) -> str | None:
        """Return None if the last look was answered, else what was wrong."""
        return self._problem

    def register(self, metrics: Metrics) -> None:
        """Have ``/metrics`` show what was found."""
        metrics.bind_gauge(metrics.replication_lag_bytes, self._lag_bytes)
        metrics.bind_gauge(metrics.replication_lag_seconds, self._lag_s)
        metrics.bind_gauge(metrics.slot_retained_bytes, lambda: float(self._slot.retained_bytes))
        metrics.bind_gauge(metrics.slot_safe_wal_bytes, self._safe_wal_bytes)
        metrics.bind_gauge(metrics.slots_dropped, lambda: float(self._slot_limit.drops))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._note(await self._look())
            if self._problem is None:
                await self._slot_limit.enforce(self._slot.retained_bytes)
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
        self._note_slot(found.limited_to(self._slot_limit.bytes_max))
        self._meter.look(found.database, self._clock.monotonic_s())
        return None

    def _note(self, problem: str | None) -> None:
        """Keep the answer; a change of it is worth a line in the log."""
        if problem is not None and self._problem is None:
            _log.warning("database_does_not_answer", problem=problem)
        elif problem is None and self._problem is not None:
            _log.info("database_answers_again")
        self._problem = problem

    def _note_slot(self, found: SlotPosition) -> None:
        """Keep what was found; warn once when the slot comes near its limit."""
        was_half_used, self._slot = self._slot.is_half_used, found
        if found.is_half_used and not was_half_used:
            _log.warning(
                "slot_retains_much_wal",
                slot=self._slot_name,
                retained_bytes=found.retained_bytes,
                limit_bytes=found.limit_bytes,
                remedy="find out why the reader is behind, or raise max_slot_wal_keep_size (or"
                " HELIOGRAPH_SLOT_WAL_BYTES_MAX): above it the slot is lost and every client must"
                " load anew",
            )
        elif was_half_used and not found.is_half_used:
            _log.info("slot_retains_less_wal", retained_bytes=found.retained_bytes)

    def _safe_wal_bytes(self) -> float:
        safe = self._slot.safe_wal_bytes
        return math.nan if safe is None else float(safe)

    def _lag_bytes(self) -> float:
        return float(max(0, self._slot.database - self._source.status().progress))

    def _lag_s(self) -> float:
        return self._meter.lag_s(self._source.status().progress, self._clock.monotonic_s())
