"""Reading the ring for a lane that overflowed, and for channels that lag."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

import structlog

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.transaction import Transaction
from heliograph.ports.clock import Clock
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.groups import BindingGroup
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import DispatchedTransaction, LaneItem, LaneMark
from heliograph.server.delivery.large_transactions import (
    ROWS_LOST,
    LargeTransactions,
    Patience,
    is_large,
)
from heliograph.server.delivery.shared_rows import SharedRows

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import Match

_log = structlog.get_logger("heliograph.delivery")


class Dispatching(Protocol):
    """What reading the ring needs from the dispatcher.

    Attributes:
        large: Transactions with many rows.
    """

    large: LargeTransactions

    async def reach(self, lsn: Lsn) -> None:
        """Wait until everything that commits up to a position was dispatched."""
        ...

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        ...

    def adopted(
        self, transaction: Transaction
    ) -> tuple[dict[int, tuple[int, ...] | None], list[int]]:
        """Return where the keys stand, and the tables whose relation is not the catalog's."""
        ...


class RingReading:
    """Implements `catch_up.RingReader`; belongs to the event loop.

    Attributes:
        ring: The change log.
    """

    def __init__(
        self, ring: Ring, dispatching: Dispatching, clock: Clock, *, leave_events: bool
    ) -> None:
        """Wire it.

        Args:
            ring: The change log.
            dispatching: The dispatcher.
            clock: For durations.
            leave_events: Whether rows that leave a view are told.
        """
        self.ring = ring
        self._dispatching = dispatching
        self._clock = clock
        self._leave_events = leave_events
        self._shared = SharedRows()

    def restart(self) -> None:
        """Begin with another history."""
        self._shared.restart()

    async def reach(self, lsn: Lsn) -> None:
        """Wait until everything that commits up to a position was dispatched.

        Raises:
            UnavailableError: If the stream does not get there in time.
        """
        await self._dispatching.reach(lsn)

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        return self._dispatching.last_dispatched()

    def item(
        self,
        lane: Lane,
        transaction: Transaction,
        channel: SubscribedChannel | None,
        groups: Sequence[BindingGroup],
    ) -> LaneItem | None:
        """Do what `items` does with a transaction that is not large, in one piece.

        Args:
            lane: The lane.
            transaction: The transaction.
            channel: One that lags; None for the whole lane.
            groups: What `groups_of` returns, in the same turn of the loop.
        """
        if channel is not None and not channel.is_owed(transaction.xid, transaction.commit_lsn):
            return None
        tables, places = self._places_for(lane, transaction, channel, groups)
        wanted = {oid: key for oid, key in places.items() if oid in tables}
        dispatched, changes = self._shared.get(transaction, wanted)
        after = _taken_of(transaction, channel)
        if after >= 0:
            changes = [change for change in changes if change.sequence > after]
        return self._item(dispatched, channel, groups, changes)

    def groups_of(self, lane: Lane, channel: SubscribedChannel | None) -> list[BindingGroup]:
        """Return the groups of a channel, or all of its lane."""
        if channel is None:
            return list(lane.groups.values())
        return [group for group in lane.groups.values() if channel in group.channels]

    async def items(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel | None
    ) -> AsyncGenerator[LaneItem | None]:
        """Match a large transaction from the ring against a lane, or one of its channels that lags.

        Yields:
            Parts that are not empty, in order; None where a part would be.

        Raises:
            LimitExceededError: If the rows of an oversize transaction can not be had any more.
            StorageError: As above.
            RemoteProtocolError: As above.
        """
        if channel is not None and not channel.is_owed(transaction.xid, transaction.commit_lsn):
            return
        groups = self.groups_of(lane, channel)
        _, places = self._places_for(lane, transaction, channel, groups)
        after = _taken_of(transaction, channel)
        segments = self._dispatching.large.segments(transaction, places, after_sequence=after)
        async with aclosing(segments):
            async for segment in segments:
                # A table may have been read anew since the segment before.
                known, _ = self._dispatching.adopted(transaction)
                agreeing = [change for change in segment if change.relation.oid in known]
                groups = self.groups_of(lane, channel)
                yield self._item(DispatchedTransaction(transaction), channel, groups, agreeing)

    def _places_for(
        self,
        lane: Lane,
        transaction: Transaction,
        channel: SubscribedChannel | None,
        groups: Sequence[BindingGroup],
    ) -> tuple[set[int], dict[int, tuple[int, ...] | None]]:
        """Return the tables that a lane or channel reads, and where the keys of all tables are."""
        tables = {group.entry.description.oid for group in groups}
        places, disagreeing = self._dispatching.adopted(transaction)
        if disagreeing:
            for group in groups:
                if group.entry.description.oid in disagreeing:
                    tell_resync(lane, group, "relation_disagrees", transaction, channel)
        return tables, places

    def _item(
        self,
        dispatched: DispatchedTransaction,
        channel: SubscribedChannel | None,
        groups: Sequence[BindingGroup],
        changes: Sequence[RowChange],
    ) -> LaneItem | None:
        """Match some changes against some groups of one lane."""
        matches: list[Match] = []
        for change in changes:
            for group in groups:
                if group.entry.description.oid != change.relation.oid:
                    continue
                match = group.match(change, leave_events=self._leave_events)
                if match is not None:
                    matches.append(match)
        return LaneItem(dispatched, matches, channel) if matches else None

    async def refill(self, lane: Lane) -> None:
        """Give an overflown lane that has nothing to do what it missed, or let it be live again."""
        behind = lane.behind
        if behind is None:
            return
        if not self.ring.covers(behind):
            lane.behind = None
            resync_each(lane.channels(), "fell_behind")
            return
        tables = {group.entry.description.oid for group in lane.groups.values()}
        after, _ = self.ring.after(behind, tables, limits.REFILL_TRANSACTIONS_MAX)
        # Those beyond wait to be dispatched, to this lane as well.
        found = [kept for kept in after if kept.commit_lsn <= self.last_dispatched()]
        if not found:
            lane.behind = None
            self._dispatching.large.release()
        elif is_large(found[0]):
            await self._refill_large(lane, found[0])
        else:
            for transaction in takewhile(lambda kept: not is_large(kept), found):
                self._refill_one(lane, transaction)
                lane.behind = transaction.commit_lsn
                if lane.is_full():
                    return

    def _refill_one(self, lane: Lane, transaction: Transaction) -> None:
        """Queue a transaction for a lane; never waits, so that no other history can begin."""
        item = self.item(lane, transaction, None, self.groups_of(lane, None))
        if item is not None:
            lane.append(item)
        self._tell_truncated(lane, transaction)

    async def _refill_large(self, lane: Lane, transaction: Transaction) -> None:
        """Have all channels of a lane share the reading of a transaction with many rows."""
        history = lane.history
        try:
            await self._read_large(lane, transaction)
        except ROWS_LOST as error:
            _log.warning("large_transaction_not_delivered", error=error.code)
            self._tell_lost(lane, transaction)
        if lane.history == history:
            lane.amid = None
            lane.behind = transaction.commit_lsn
            self._tell_truncated(lane, transaction)

    async def _read_large(self, lane: Lane, transaction: Transaction) -> None:
        """Give it part by part, as long as the lane has channels and its history goes on."""
        history, patience = lane.history, Patience(self._clock)
        async with aclosing(self.items(lane, transaction, None)) as items:
            async for item in items:
                for part in () if item is None else item.parts():
                    if lane.history != history:
                        return
                    part.is_last = False
                    await lane.work_live([part])
                if lane.history != history or not lane.groups:
                    return
                await patience.wait_room(lane.channels())

    def _tell_truncated(self, lane: Lane, transaction: Transaction) -> None:
        emptied = {relation.oid for relation in transaction.truncated}
        for group in lane.groups.values():
            if group.entry.description.oid in emptied:
                tell_resync(lane, group, "truncated", transaction, None)

    def _tell_lost(self, lane: Lane, transaction: Transaction) -> None:
        oids = {relation.oid for relation in transaction.relations}
        for group in lane.groups.values():
            if group.entry.description.oid in oids:
                live = [channel for channel in group.channels if channel.lag is None]
                resync_each(live, "transaction_too_large")


def _taken_of(transaction: Transaction, channel: SubscribedChannel | None) -> int:
    """Return the last change of a transaction that a channel that lags has been given."""
    place = None if channel is None else channel.lag
    within = place is not None and place.commit_lsn == transaction.commit_lsn
    return place.sequence if place is not None and within else -1


def _resync_owed(group: BindingGroup, reason: str, transaction: Transaction) -> None:
    owed = (c for c in group.channels if c.is_owed(transaction.xid, transaction.commit_lsn))
    resync_each(tuple(owed), reason)


def tell_resync(
    lane: Lane,
    group: BindingGroup,
    reason: str,
    transaction: Transaction,
    channel: SubscribedChannel | None,
) -> None:
    """Tell the subscribers of a group that changes may be missing.

    Args:
        lane: The group's.
        group: The group.
        reason: What is told.
        transaction: The reason's place; who subscribed behind it is not told.
        channel: Tell this one now, because it reads the ring and is at that place; None: tell all
            when the lane is there.
    """
    if channel is not None:
        channel.resync(reason)
    else:
        tell = partial(_resync_owed, group, reason, transaction)
        lane.tell_in_order(LaneMark(transaction.commit_lsn, tell))


def resync_each(channels: Iterable[SubscribedChannel], reason: str) -> None:
    """Tell channels that changes may be missing."""
    for channel in channels:
        channel.resync(reason)
