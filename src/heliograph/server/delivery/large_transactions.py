"""The rows of transactions with many rows, kept for whoever reads them segment by segment.

Nobody waits for anybody: each lane reads such a transaction from the ring at its own pace
(`RingReading.refill`), and so does a channel that has no room. What they share is kept here: the
file that holds the rows, what became of keys that occur more than once, and the turns in which
segments are decoded, one in each turn of the event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliograph import limits
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.row_message import Wanted
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import LimitExceededError, RemoteProtocolError, StorageError
from heliograph.ports.clock import Clock
from heliograph.server.delivery.channel import SubscribedChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from heliograph.core.replication.lsn import Lsn

#: What reading the rows of a large transaction may raise: they are lost, and its tables are told.
ROWS_LOST = (LimitExceededError, StorageError, RemoteProtocolError)


def is_large(transaction: Transaction) -> bool:
    """Tell whether a transaction is read in segments."""
    return transaction.is_too_large or transaction.row_count > limits.TRANSACTION_ROWS_AT_ONCE_MAX


@dataclass(slots=True, eq=False)
class _Kept:
    """One transaction; ``folding`` is held while a reader does what all readers share."""

    rows: OversizeTransaction
    since_s: float
    folding: asyncio.Lock = field(default_factory=asyncio.Lock)


class LargeTransactions:
    """See the module; belongs to the event loop."""

    def __init__(self, needed_from: "Callable[[], Lsn | None]", clock: Clock) -> None:
        """Start with none.

        Args:
            needed_from: Returns the lowest position behind which somebody reads, None if nobody.
            clock: For ages.
        """
        self._needed_from = needed_from
        self._clock = clock
        self._kept: dict[Lsn, _Kept] = {}
        self._turn = asyncio.Lock()

    def keep(self, rows: OversizeTransaction) -> None:
        """Keep the rows of an oversize transaction that is about to be dispatched."""
        self._kept[rows.mark.commit_lsn] = _Kept(rows, self._clock.monotonic_s())
        self._drop_excess()

    async def segments(
        self, transaction: Transaction, wanted: Wanted, *, after_sequence: int
    ) -> AsyncGenerator[Sequence[RowChange]]:
        """Yield the rows of a large transaction; see `OversizeTransaction.segments`.

        Raises:
            LimitExceededError: If its rows are not kept any more; so for the others.
            StorageError: If they can not be read.
            RemoteProtocolError: If they are malformed.
        """
        kept = self._find(transaction)
        async with kept.folding:
            for _ in kept.rows.fold(wanted):
                await asyncio.sleep(0)
        segments = iter(kept.rows.segments(wanted, after_sequence=after_sequence))
        while True:
            async with self._turn:
                await asyncio.sleep(0)
                segment = next(segments, None)
            if segment is None:
                return
            yield segment

    def _find(self, transaction: Transaction) -> _Kept:
        kept = self._kept.get(transaction.commit_lsn)
        if kept is None and transaction.is_too_large:
            message = "the rows of an oversize transaction are gone"
            raise LimitExceededError(message)
        if kept is None:
            rows = OversizeTransaction.in_memory(transaction)
            kept = self._kept[transaction.commit_lsn] = _Kept(rows, self._clock.monotonic_s())
            self._drop_excess()
        return kept

    def release(self) -> None:
        """Remove what nobody reads any more, and what is too old.

        What is on disk can not be had again: it stays a while for clients that were cut off in it.
        """
        if not self._kept:
            return
        needed_from = self._needed_from()
        now_s = self._clock.monotonic_s()
        for commit_lsn, kept in tuple(self._kept.items()):
            is_read = needed_from is not None and needed_from < commit_lsn
            unread_s = limits.OVERSIZE_UNREAD_S if kept.rows.mark.is_too_large else 0.0
            patience_s = limits.OVERSIZE_KEPT_S_MAX if is_read else unread_s
            if now_s - kept.since_s >= patience_s:
                self._drop(commit_lsn)

    def restart(self) -> None:
        """Begin with another history."""
        for commit_lsn in tuple(self._kept):
            self._drop(commit_lsn)

    def _drop_excess(self) -> None:
        """Keep a bounded number on disk, and as many in memory, which can be had again."""
        for on_disk in (True, False):
            same = [
                lsn for lsn, kept in self._kept.items() if kept.rows.mark.is_too_large is on_disk
            ]
            for commit_lsn in same[: -limits.OVERSIZE_KEPT_MAX]:
                self._drop(commit_lsn)

    def _drop(self, commit_lsn: "Lsn") -> None:
        self._kept.pop(commit_lsn).rows.close()


class Patience:
    """How long one lane waits for its connections while it reads one large transaction.

    So that those who keep up share one reading. Who has no room by then reads the rest for himself.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin with all of it."""
        self._clock = clock
        self._left_s = limits.OVERSIZE_WAIT_S
        self._given_up: set[SubscribedChannel] = set()

    async def wait_room(self, channels: Collection[SubscribedChannel]) -> None:
        """Wait for the connections that were in step until now."""
        waiting = [
            channel
            for channel in channels
            if channel.lag is None and not channel.has_room() and channel not in self._given_up
        ]
        if not waiting or self._left_s <= 0:
            return
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(min(self._left_s, limits.OVERSIZE_SEGMENT_WAIT_S)):
                for channel in waiting:
                    await channel.outlet.wait_room()
        except TimeoutError:
            self._given_up.update(channel for channel in waiting if not channel.has_room())
        self._left_s -= self._clock.monotonic_s() - began_s
