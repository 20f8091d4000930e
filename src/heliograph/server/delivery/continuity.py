"""The epoch: whether positions given out earlier still mean something.

Asked whenever a stream starts. What was received at the most is noted outside PostgreSQL before a
client is told a position and before the slot is told that something is kept.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from heliograph.core.changelog.history import (
    Discontinuity,
    KnownHistory,
    StreamStart,
    why_not_continued,
)
from heliograph.core.changelog.position import Epoch, PositionCodec, make_fingerprint
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.ports.continuity_store import ContinuityRecord, ContinuityStore

_log = structlog.get_logger("heliograph.continuity")

_NONCE_BYTES: Final = 8
_KEY_BYTES: Final = 32


class Continuity:
    """What is known of the history that is read; belongs to the event loop.

    Attributes:
        epoch: The current one; 0 before the first stream has started.
        codec: Writes and reads positions.
    """

    def __init__(
        self, store: ContinuityStore, *, draw: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        """Begin before the first stream.

        Args:
            store: Outlives the process.
            draw: Returns so many random bytes.
        """
        self._store = store
        self._draw = draw
        self._record: ContinuityRecord | None = None
        self._noted: Lsn = ZERO_LSN
        self.epoch = Epoch(0)
        self.codec = PositionCodec(draw(_KEY_BYTES))

    def start(self, now: StreamStart) -> Discontinuity | None:
        """Learn that a stream starts; how far the one before was received must have been noted.

        Returns:
            Why nothing that was known continues; None if it does, or nothing was known.
        """
        record = self._store.load() if self._record is None else self._record
        reason: Discontinuity | None = None
        if record is not None:
            received = Lsn(max(record.history.received, self._noted))
            record = replace(record, history=replace(record.history, received=received))
            reason = why_not_continued(record.history, now)
        if record is None or reason is not None:
            _log.info("epoch_begins", reason=reason or "nothing was known")
            record = self._new_record(record, now)
        self._adopt(record)
        return reason

    def note_received(self, received: Lsn) -> None:
        """Have it outlive the process that everything below a position was received."""
        if received > self._noted:
            self._noted = received
            self._store.note_received(received)

    def sync(self) -> None:
        """Have what was noted written to disk; may take long."""
        self._store.sync()

    def _new_record(self, before: ContinuityRecord | None, now: StreamStart) -> ContinuityRecord:
        history = KnownHistory(now.system_identifier, now.timeline, now.slot_name, now.start_lsn)
        key = self._draw(_KEY_BYTES) if before is None else before.key
        record = ContinuityRecord(history, self._draw(_NONCE_BYTES), key)
        self._store.save(record)
        return record

    def _adopt(self, record: ContinuityRecord) -> None:
        history = record.history
        self._record = record
        self._noted = history.received
        self.codec = PositionCodec(record.key)
        parts = (history.system_identifier, str(history.timeline), record.nonce.hex())
        self.epoch = Epoch(make_fingerprint("\0".join(parts)))
