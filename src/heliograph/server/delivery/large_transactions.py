"""Transactions with many rows: dispatched segment by segment, and kept for whoever is slower.

All who are in step share one pass over the rows. Each segment waits until it is judged, and for
connections without room, both a bounded time. A connection that has none by then lags, like any
other: once the pass is over it reads the rest from the place where it stopped, at its own pace. An
audience whose policies take longer is told ``resync`` instead of the rest: nobody else waits.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import structlog

from heliograph import limits
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.row_message import Wanted
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import LimitExceededError, RemoteProtocolError, StorageError
from heliograph.ports.clock import Clock
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel

if TYPE_CHECKING:
    from heliograph.core.replication.lsn import Lsn

_log = structlog.get_logger("heliograph.delivery")

#: What reading the rows of a large transaction may raise: they are lost, and its tables are told.
ROWS_LOST = (LimitExceededError, StorageError, RemoteProtocolError)


class SegmentReceiver(Protocol):
    """What large transactions need from delivery."""

    def key_places(self, transaction: Transaction) -> dict[int, tuple[int, ...] | None]:
        """Return where the keys of the subscribed tables stand."""
        ...

    def dispatch_segment(self, transaction: Transaction, changes: Sequence[RowChange]) -> None:
        """Give each lane its part of some changes of one transaction."""
        ...

    def resync_table(self, table_oid: int, reason: str, transaction: Transaction) -> None:
        """Tell every channel of a table."""
        ...

    def channels(self) -> Iterable[SubscribedChannel]:
        """Return every channel, some more than once."""
        ...

    def concerned_channels(self, transaction: Transaction) -> Iterable[SubscribedChannel]:
        """Return the channels of the tables of a transaction."""
        ...

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no lane has work left, or the time is over."""
        ...

    def leave_behind(self, transaction: Transaction) -> None:
        """Tell lanes that still have work ``resync`` instead of the rest of a transaction."""
        ...


def is_large(transaction: Transaction) -> bool:
    """Tell whether a transaction is handed on in segments."""
    return transaction.is_too_large or transaction.row_count > limits.TRANSACTION_ROWS_AT_ONCE_MAX


class LargeTransactions:
    """See the module; belongs to the event loop.

    Attributes:
        place: Last place given to the lanes of the transaction that is being dispatched; None
            while none is.
    """

    def __init__(self, receiver: SegmentReceiver, clock: Clock) -> None:
        """Start with none."""
        self._receiver = receiver
        self._clock = clock
        self._kept: dict[Lsn, tuple[OversizeTransaction, float]] = {}
        self._is_over = asyncio.Event()
        self.place: Place | None = None

    async def dispatch(self, large: OversizeTransaction) -> None:
        """Give the lanes all changes of a transaction."""
        mark = large.mark
        if mark.is_too_large:
            self._kept[mark.commit_lsn] = (large, self._clock.monotonic_s())
        self._is_over.clear()
        own = self.place = Place(mark.commit_lsn, -1)
        patience = _Patience(self._clock)
        try:
            await self._wait_lanes(mark, patience)
            for segment in large.segments(self._receiver.key_places(mark)):
                if self.place is not own:  # another history began
                    return
                self._receiver.dispatch_segment(mark, segment)
                await asyncio.sleep(0)
                await self._wait_lanes(mark, patience)
                await patience.wait_room(self._receiver.concerned_channels(mark))
                if segment and self.place is own:
                    own = self.place = Place(mark.commit_lsn, segment[-1].sequence)
        except ROWS_LOST as error:
            _log.warning("oversize_transaction_not_delivered", error=error.code)
            for relation in mark.relations:
                self._receiver.resync_table(relation.oid, "transaction_too_large", mark)

    async def _wait_lanes(self, mark: Transaction, patience: "_Patience") -> None:
        """Wait until the lanes have judged what they were given, within bounds."""
        began_s = self._clock.monotonic_s()
        await self._receiver.wait_idle(min(patience.lanes_left_s, limits.OVERSIZE_LANE_WAIT_S))
        patience.lanes_left_s -= self._clock.monotonic_s() - began_s
        self._receiver.leave_behind(mark)

    def finish(self) -> None:
        """Let those who lag read the transaction that `dispatch` was about: it is dispatched."""
        self.place = None
        self._is_over.set()
        self.release()

    async def wait_finished(self) -> None:
        """Wait until no transaction is being dispatched in segments."""
        if self.place is not None:
            await self._is_over.wait()

    def segments(
        self, transaction: Transaction, wanted: Wanted, *, after_sequence: int
    ) -> Iterator[Sequence[RowChange]]:
        """Read the rows of a large transaction again; see `OversizeTransaction.segments`.

        Raises:
            LimitExceededError: If its rows are not kept any more.
        """
        if not transaction.is_too_large:
            large = OversizeTransaction.in_memory(transaction)
        elif (kept := self._kept.get(transaction.commit_lsn)) is not None:
            large = kept[0]
        else:
            message = "the rows of an oversize transaction are gone"
            raise LimitExceededError(message)
        return large.segments(wanted, after_sequence=after_sequence)

    def release(self) -> None:
        """Remove what nobody reads any more, what is too old, and what is too many."""
        if not self._kept:
            return
        lags = [channel.lag for channel in self._receiver.channels() if channel.lag is not None]
        needed = min(lags, default=None)
        oldest_s = self._clock.monotonic_s() - limits.OVERSIZE_KEPT_S_MAX
        for commit_lsn, (large, since_s) in tuple(self._kept.items()):
            is_dispatched = self.place is None or self.place.commit_lsn != commit_lsn
            is_read = needed is not None and needed < Place(commit_lsn, END_OF_TRANSACTION)
            is_over = since_s < oldest_s or len(self._kept) > limits.OVERSIZE_KEPT_MAX
            if is_dispatched and (not is_read or is_over):
                large.close()
                del self._kept[commit_lsn]

    def restart(self) -> None:
        """Begin with another history."""
        self.place = None
        self._is_over.set()
        for large, _ in self._kept.values():
            large.close()
        self._kept.clear()


class _Patience:
    """How long the segments of one transaction wait: for lanes, and for connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lanes_left_s = limits.OVERSIZE_LANES_WAIT_S
        self._left_s = limits.OVERSIZE_WAIT_S
        self._given_up: set[SubscribedChannel] = set()

    async def wait_room(self, channels: Iterable[SubscribedChannel]) -> None:
        """Wait for the connections that were in step until now."""
        waiting = {
            channel
            for channel in channels
            if channel.lag is None and not channel.has_room() and channel not in self._given_up
        }
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
