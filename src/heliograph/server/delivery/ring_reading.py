"""Reading the ring for a lane that overflowed, and for channels that lag."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel
from heliograph.server.delivery.groups import BindingGroup
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import DispatchedTransaction, LaneItem, LaneMark
from heliograph.server.delivery.large_transactions import LargeTransactions, is_large

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import Match

#: Transactions that an overflown lane takes from the ring at once.
_REFILL_TRANSACTIONS = 128


class Dispatching(Protocol):
    """What reading the ring needs from the dispatcher.

    Attributes:
        large: Transactions with many rows.
    """

    large: LargeTransactions

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        ...

    def adopted(
        self, transaction: Transaction
    ) -> tuple[dict[int, tuple[int, ...] | None], list[int]]:
        """Return where the keys stand, and the tables whose relation is not the catalog's."""
        ...

    def start_catch_up(self, lane: Lane, channel: SubscribedChannel) -> None:
        """Have a lagging channel read from the ring at its own pace."""
        ...


class RingReading:
    """Implements `catch_up.RingReader`; belongs to the event loop.

    Attributes:
        ring: The change log.
    """

    def __init__(self, ring: Ring, dispatching: Dispatching, *, leave_events: bool) -> None:
        """Wire it.

        Args:
            ring: The change log.
            dispatching: The dispatcher.
            leave_events: Whether rows that leave a view are told.
        """
        self.ring = ring
        self._dispatching = dispatching
        self._leave_events = leave_events

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        return self._dispatching.last_dispatched()

    def is_amid_segments(self) -> bool:
        """Tell whether a large transaction is being dispatched."""
        return self._dispatching.large.place is not None

    async def wait_dispatched(self) -> None:
        """Wait until that one is dispatched."""
        await self._dispatching.large.wait_finished()

    def item_for(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel | None
    ) -> LaneItem | None:
        """Match one transaction from the ring against one lane, or one of its channels."""
        if channel is not None and not channel.is_owed(transaction.xid, transaction.commit_lsn):
            return None
        tables, places = self._places_for(lane, transaction, channel)
        changes = transaction.decode({oid: key for oid, key in places.items() if oid in tables})
        return self._item(lane, transaction, channel, changes)

    def items_for(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel, after_sequence: int
    ) -> Iterator[LaneItem | None]:
        """Do the same for one channel step by step, from a place in the transaction on.

        Raises:
            LimitExceededError: If the rows of an oversize transaction can not be had any more.
            StorageError: As above.
            RemoteProtocolError: As above.
        """
        if not is_large(transaction):
            item = self.item_for(lane, transaction, channel)
            if item is not None:
                item.matches = [m for m in item.matches if m.change.sequence > after_sequence]
            yield item
            return
        if not channel.is_owed(transaction.xid, transaction.commit_lsn):
            return
        _, places = self._places_for(lane, transaction, channel)
        segments = self._dispatching.large.segments(
            transaction, places, after_sequence=after_sequence
        )
        for changes in segments:
            # A table may have been read anew since the segment before.
            known, _ = self._dispatching.adopted(transaction)
            agreeing = [change for change in changes if change.relation.oid in known]
            yield self._item(lane, transaction, channel, agreeing)

    def _places_for(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel | None
    ) -> tuple[set[int], dict[int, tuple[int, ...] | None]]:
        """Return the tables that a lane or channel reads, and where the keys of all tables are."""
        tables = {
            group.entry.description.oid
            for group in lane.groups.values()
            if channel is None or channel in group.channels
        }
        places, disagreeing = self._dispatching.adopted(transaction)
        for group in lane.groups.values():
            is_reader = channel is None or channel in group.channels
            if is_reader and group.entry.description.oid in disagreeing:
                tell_resync(lane, group, "relation_disagrees", transaction, channel)
        return tables, places

    def _item(
        self,
        lane: Lane,
        transaction: Transaction,
        channel: SubscribedChannel | None,
        changes: Sequence[RowChange],
    ) -> LaneItem | None:
        """Match some changes against one lane, or one of its channels."""
        groups = [
            group for group in lane.groups.values() if channel is None or channel in group.channels
        ]
        matches: list[Match] = []
        for change in changes:
            for group in groups:
                if group.entry.description.oid != change.relation.oid:
                    continue
                match = group.match(change, leave_events=self._leave_events)
                if match is not None:
                    matches.append(match)
        return LaneItem(DispatchedTransaction(transaction), matches, channel) if matches else None

    def refill(self, lane: Lane) -> bool:
        """Push what an overflown lane missed; false when it is live again."""
        if lane.behind is None:
            return False
        tables = {group.entry.description.oid for group in lane.groups.values()}
        if not self.ring.covers(lane.behind):
            lane.behind = None
            resync_each(lane.channels(), "fell_behind")
            return False
        while True:
            after, _ = self.ring.after(lane.behind, tables, _REFILL_TRANSACTIONS)
            # Those beyond wait to be dispatched, to this lane as well.
            found = [kept for kept in after if kept.commit_lsn <= self.last_dispatched()]
            for transaction in found:
                if is_large(transaction) and not lane.is_idle():
                    return True
                self._refill_one(lane, transaction)
                lane.behind = transaction.commit_lsn
            if not lane.is_idle():
                return True
            if len(found) < _REFILL_TRANSACTIONS:
                lane.behind = None
                return False

    def _refill_one(self, lane: Lane, transaction: Transaction) -> None:
        if is_large(transaction):
            self._leave_to_channels(lane, transaction)
            return
        item = self.item_for(lane, transaction, None)
        if item is not None:
            lane.append(item)
        emptied = {relation.oid for relation in transaction.truncated}
        for group in lane.groups.values():
            if group.entry.description.oid in emptied:
                tell_resync(lane, group, "truncated", transaction, None)

    def _leave_to_channels(self, lane: Lane, transaction: Transaction) -> None:
        """Have each channel of a lane that has nothing to do read on from a transaction."""
        for channel in lane.channels():
            if channel.lag is None:
                channel.lag = Place(Lsn(transaction.commit_lsn - 1), END_OF_TRANSACTION)
                self._dispatching.start_catch_up(lane, channel)


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
