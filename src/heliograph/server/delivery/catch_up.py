"""A channel whose connection has no room reads from the ring at its own pace.

It left the live flow at a place (`SubscribedChannel.lag`). Whatever follows that place is read
from the ring, judged again under today's rights and sent as its connection drains. When it has
been given everything before its lane's next unfinished transaction it is live again; both happen
without an await in between, so nothing is lost or sent twice. What it misses of a transaction that
is being dispatched in segments it reads when that is over.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel
from heliograph.server.delivery.handing_over import finish
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import DispatchedTransaction, LaneItem
from heliograph.server.delivery.large_transactions import ROWS_LOST

#: Transactions read from the ring at once; bounds what is decoded ahead of the connection.
_TRANSACTIONS_AT_ONCE = 32


class RingReader(Protocol):
    """What catching up needs from delivery."""

    ring: Ring

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        ...

    def is_amid_segments(self) -> bool:
        """Tell whether a transaction is being dispatched in segments."""
        ...

    async def wait_dispatched(self) -> None:
        """Wait until that one is dispatched."""
        ...

    def items_for(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel, after_sequence: int
    ) -> Iterator[LaneItem | None]:
        """Match one transaction from the ring against one channel, step by step.

        Raises:
            LimitExceededError: If its rows can not be had any more; so for the others.
            StorageError: As above.
            RemoteProtocolError: As above.
        """
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
        if not transactions and reader.is_amid_segments():
            # Live channels have a part of it already.
            await reader.wait_dispatched()
            continue
        if not transactions:
            channel.lag = None
            return
        for transaction in transactions:
            try:
                is_given = await _give(reader, lane, channel, transaction)
            except ROWS_LOST:
                _give_up(channel, "transaction_too_large")
                return
            if not is_given:
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
    """Send one transaction as the connection drains; false if it must look again where it is."""
    place = channel.lag
    if place is None:
        return False
    after = place.sequence if transaction.commit_lsn == place.commit_lsn else -1
    for step in reader.items_for(lane, transaction, channel, after):
        for part in () if step is None else step.parts():
            if not await _give_part(lane, channel, part):
                return False
        await asyncio.sleep(0)
        if channel.lag is None or channel.is_closed:
            return False
    finish(LaneItem(DispatchedTransaction(transaction), [], channel), channel)
    if _is_truncated(lane, channel, transaction):
        channel.resync("truncated")
    return True


async def _give_part(lane: Lane, channel: SubscribedChannel, part: LaneItem) -> bool:
    """Send a part, in as many pieces as the connection has room for."""
    part.is_catch_up = True
    while part.matches:
        part.is_stalled = False
        await lane.work([part])
        if not part.is_stalled:
            break
        place = channel.lag
        await channel.outlet.wait_room()
        await asyncio.sleep(0)
        if place is None or channel.lag is not place or channel.is_closed:
            return False
        part.matches = [
            match for match in part.matches if Place(part.commit_lsn, match.change.sequence) > place
        ]
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
