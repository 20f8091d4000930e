"""How far the slot's confirmed position trails behind what was received.

PostgreSQL sends everything behind the confirmed position again after a restart, and from that the
ring is filled anew. So the slot confirms only what lies before the last stretch of the stream,
bounded by transactions, bytes and age so that reading it again takes few seconds, and by the WAL
that is held back for it.
"""

from dataclasses import dataclass
from typing import Final

from heliograph.core.changelog.window import Window
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.limits import (
    RING_AGE_S_MAX,
    RING_TRANSACTION_OVERHEAD_BYTES,
    SLOT_TRAIL_BYTES_MAX,
    SLOT_TRAIL_TRANSACTIONS_MAX,
    SLOT_TRAIL_WAL_BYTES_MAX,
    SLOT_TRAIL_WAL_SHARE_MAX,
)

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TrailBounds:
    """How much may be sent again; see the comments in ``limits.py``."""

    transactions_max: int = SLOT_TRAIL_TRANSACTIONS_MAX
    bytes_max: int = SLOT_TRAIL_BYTES_MAX
    wal_bytes_max: int = SLOT_TRAIL_WAL_BYTES_MAX
    age_s_max: float = RING_AGE_S_MAX


class SlotTrail:
    """The last transactions received, as numbers. Time is an argument, in seconds."""

    def __init__(self, bounds: TrailBounds | None = None) -> None:
        """Start empty."""
        self._bounds = bounds or TrailBounds()
        self.restart(is_kept=True, slot_wal_bytes=None)

    def restart(self, *, is_kept: bool, slot_wal_bytes: int | None) -> None:
        """Begin with another stream.

        Args:
            is_kept: Whether the slot trails at all; a polled slot is decoded again from its
                confirmed position with every poll, so it does not.
            slot_wal_bytes: WAL that the server holds back for the slot at the most before the slot
                is lost; None if there is no limit.
        """
        self._is_kept = is_kept
        self._wal_bytes_max = self._bounds.wal_bytes_max
        if slot_wal_bytes is not None:
            share = int(slot_wal_bytes * SLOT_TRAIL_WAL_SHARE_MAX)
            self._wal_bytes_max = min(self._wal_bytes_max, share)
        self._commit_lsns = Window()
        self._sizes = Window()
        self._received_at_us = Window()
        self._size_bytes = 0

    def add(self, transaction: Transaction, now_s: float) -> None:
        """Note a transaction that was just received."""
        if not self._is_kept:
            return
        size = transaction.size_bytes + RING_TRANSACTION_OVERHEAD_BYTES
        self._commit_lsns.append(transaction.commit_lsn)
        self._sizes.append(size)
        self._received_at_us.append(int(now_s * _US_PER_S))
        self._size_bytes += size
        while (
            self._size_bytes > self._bounds.bytes_max
            or len(self._commit_lsns) > self._bounds.transactions_max
        ):
            self._drop_first()

    def confirmed(self, received: Lsn, now_s: float, *, unseen_from: Lsn | None = None) -> Lsn:
        """Return the position that the slot may confirm.

        Args:
            received: Every transaction that commits below it was received.
            now_s: Now.
            unseen_from: Where the first transaction commits that was received and is not visible
                yet: who subscribes behind a restart is owed it. None if there is none.
        """
        if unseen_from is not None and self._is_kept:
            received = min(received, unseen_from)
        oldest_us = int((now_s - self._bounds.age_s_max) * _US_PER_S)
        while len(self._commit_lsns) and (self._received_at_us[0] < oldest_us):
            self._drop_first()
        if not len(self._commit_lsns):
            return received
        furthest = max(self._commit_lsns[0], received - self._wal_bytes_max)
        return Lsn(min(received, furthest))

    def _drop_first(self) -> None:
        self._size_bytes -= self._sizes[0]
        for column in (self._commit_lsns, self._sizes, self._received_at_us):
            column.drop_first()
