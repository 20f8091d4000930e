"""A channel whose connection has no room reads from the ring at its own pace.

It left the live flow at a place (`SubscribedChannel.lag`). Whatever follows that place is read
from the ring, judged again under today's rights and sent as its connection drains. When it has
been given everything before its lane's next unfinished transaction it is live again; both happen
without an await in between, so nothing is lost or sent twice.
"""

from typing import Protocol

from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel
from heliograph.server.delivery.handing_over import finish
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import DispatchedTransaction, LaneItem

#: Transactions read from the ring at once; bounds what is decoded ahead of the connection.
_TRANSACTIONS_AT_ONCE = 32


class RingReader(Protocol):
    """What catching up needs from delivery."""

    ring: Ring

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        ...

    def item_for(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel
    ) -> LaneItem | None:
        """Match one transaction from the ring against one channel; None if nothing matches."""
        ...


async def catch_up(reader: RingReader, lane: Lane, channel: SubscribedChannel) -> None:
    """Bring a lagging channel back to the live flow, or tell it ``resync``."""
    channel.is_catching_up = True
    try:
        await _catch_up(reader, lane, channel)
    finally:
        channel.is_catching_up = False


async def _catch_up(reader: RingReader, lane: Lane, channel: SubscribedChannel) -> None:
    while True:
        await channel.outlet.wait_room()
        place = channel.lag
        if place is None or channel.is_closed:
            return
        if not reader.ring.covers(_start(place)):
            _give_up(channel, "fell_behind")
            return
        transactions = _next(reader, lane, place)
        if not transactions:
            channel.lag = None
            return
        for transaction in transactions:
            if transaction.is_too_large:
                _give_up(channel, "transaction_too_large")
                return
            if not await _give(reader, lane, channel, transaction):
                break


def _start(place: Place) -> Lsn:
    """Return the position behind which to read: the transaction itself unless it is complete."""
    whole = place.sequence == END_OF_TRANSACTION
    return place.commit_lsn if whole else Lsn(place.commit_lsn - 1)


def _next(reader: RingReader, lane: Lane, place: Place) -> list[Transaction]:
    """Read what follows a place, up to the lane's first unfinished transaction."""
    oids = {group.entry.description.oid for group in lane.groups.values()}
    found, _ = reader.ring.after(_start(place), oids, _TRANSACTIONS_AT_ONCE)
    unfinished = lane.first_unfinished()
    end = reader.last_dispatched() if unfinished is None else Lsn(unfinished - 1)
    if lane.behind is not None:
        end = min(end, lane.behind)
    return [transaction for transaction in found if transaction.commit_lsn <= end]


async def _give(
    reader: RingReader, lane: Lane, channel: SubscribedChannel, transaction: Transaction
) -> bool:
    """Send one transaction; false when the connection had no room for all of it."""
    if channel.lag is None:
        return False
    item = reader.item_for(lane, transaction, channel)
    if item is None:
        item = LaneItem(DispatchedTransaction(transaction), [], channel)
    for part in item.parts():
        part.is_catch_up = True
        if part.matches:
            await lane.work([part])
        if part.is_stalled:
            return False
    finish(item, channel)
    if _is_truncated(lane, channel, transaction):
        channel.resync("truncated")
    return True


def _is_truncated(lane: Lane, channel: SubscribedChannel, transaction: Transaction) -> bool:
    oids = {relation.oid for relation in transaction.truncated}
    return bool(oids) and any(
        channel in group.channels and group.entry.description.oid in oids
        for group in lane.groups.values()
    )


def _give_up(channel: SubscribedChannel, reason: str) -> None:
    """Go on live without what can not be read any more, and say so."""
    channel.resync(reason)
