"""A channel whose connection has no room reads from the ring at its own pace.

It left the live flow at a place (`SubscribedChannel.lag`). Whatever follows that place is read
from the ring, judged again under today's rights and sent as its connection drains. When it has
been given everything that its lane has given to those who are live, it is live again; both happen
without an await in between, so nothing is lost or sent twice. While those have only a part of a
transaction it waits until they have all of it.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import UnavailableError
from heliograph.server.delivery.channel import (
    END_OF_TRANSACTION,
    Place,
    SubscribedChannel,
    close_failed,
)
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import FromRing, LaneItem
from heliograph.server.delivery.large_transactions import ROWS_LOST

#: Transactions read from the ring at once: about as many as make a good batch to judge.
_TRANSACTIONS_AT_ONCE = limits.JUDGEMENT_BATCH_ROWS_MAX


class RingReader(Protocol):
    """What catching up needs from delivery."""

    ring: Ring

    async def reach(self, lsn: Lsn) -> None:
        """Wait until everything that commits up to a position was dispatched.

        Raises:
            UnavailableError: If the stream does not get there in time.
        """
        ...

    def last_dispatched(self) -> Lsn:
        """Return the commit position of the last dispatched transaction."""
        ...

    def items(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel | None
    ) -> AsyncGenerator[LaneItem | None]:
        """Match one transaction from the ring against one channel, behind its place.

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
        if reader.last_dispatched() < place.read_behind():
            await _reach(reader, channel, place)
            continue
        if not reader.ring.covers(place.read_behind()):
            channel.resync("fell_behind")
            continue
        transactions, end = _next(reader, lane, place)
        if not transactions and _may_be_live(lane, channel, place, end):
            channel.lag = None
            return
        if not transactions:
            await asyncio.wait((lane.moved(),))
            continue
        try:
            await _give(reader, lane, channel, transactions)
        except ROWS_LOST:
            channel.resync("transaction_too_large")


async def _reach(reader: RingReader, channel: SubscribedChannel, place: Place) -> None:
    """Wait for the stream to come as far as the client of a channel was; it may have to rejoin."""
    try:
        await reader.reach(place.read_behind())
    except UnavailableError:
        if channel.lag is place:
            close_failed((channel,))


def _next(reader: RingReader, lane: Lane, place: Place) -> tuple[list[Transaction], Lsn]:
    """Read what follows a place, up to where the lane has given everything to those who are live.

    Returns:
        The next transactions, and the position up to which the lane is done.
    """
    oids = {group.entry.description.oid for group in lane.groups.values()}
    found, _ = reader.ring.after(place.read_behind(), oids, _TRANSACTIONS_AT_ONCE)
    end = finished_up_to(lane, reader.last_dispatched())
    return [transaction for transaction in found if transaction.commit_lsn <= end], end


def _may_be_live(lane: Lane, channel: SubscribedChannel, place: Place, end: Lsn) -> bool:
    """Tell whether a channel that has everything up to ``end`` misses nothing of what comes live.

    Not while those who are live have a part of a transaction, are not as far as the channel is, or
    are given one that was judged without it.
    """
    is_as_far = place <= Place(end, END_OF_TRANSACTION)
    return lane.amid is None and is_as_far and channel.passed_over <= end


def finished_up_to(lane: Lane, last_dispatched: Lsn) -> Lsn:
    """Return the commit position up to which a lane has given live channels everything."""
    unfinished = lane.first_unfinished()
    end = last_dispatched if unfinished is None else Lsn(unfinished - 1)
    return end if lane.behind is None else min(end, lane.behind)


async def _give(
    reader: RingReader, lane: Lane, channel: SubscribedChannel, transactions: Sequence[Transaction]
) -> None:
    """Send transactions as the connection drains; many small ones are judged together.

    Ends early where the channel lags no more, or is somewhere else: one with positions that was
    told `resync` goes on from where its lane is.
    """
    turn = _Turn(lane, channel)
    for transaction in transactions:
        if channel.lag is not None and channel.lag.read_behind() >= transaction.commit_lsn:
            return
        async with aclosing(reader.items(lane, transaction, channel)) as items:
            async for item in items:
                for part in () if item is None else item.parts():
                    if not await turn.add(part):
                        return
        await asyncio.sleep(0)
        if channel.lag is None or channel.is_closed:
            return
        truncated = _is_truncated(lane, channel, transaction)
        if not await turn.finish(transaction.commit_lsn, at_once=truncated):
            return
        if truncated:
            channel.resync("truncated")
    await turn.give()


class _Turn:
    """What one channel is given next: parts of transactions, judged together."""

    def __init__(self, lane: Lane, channel: SubscribedChannel) -> None:
        """Start empty."""
        self._lane = lane
        self._channel = channel
        self._items: list[LaneItem] = []
        self._changes = 0
        self._size_bytes = 0
        self._end: Place | None = None

    async def add(self, item: LaneItem) -> bool:
        """Take one part more; false if the channel must look again where it is."""
        self._items.append(item)
        self._changes += len(item.matches)
        self._size_bytes += item.size_bytes()
        if self._changes < limits.JUDGEMENT_BATCH_ROWS_MAX and (
            self._size_bytes < limits.OUTBOUND_BYTES_HIGH
        ):
            return True
        return await self.give()

    async def finish(self, commit_lsn: Lsn, *, at_once: bool) -> bool:
        """Note that a transaction has no further part; like `add`."""
        self._end = Place(commit_lsn, END_OF_TRANSACTION)
        return await self.give() if at_once or not self._items else True

    async def give(self) -> bool:
        """Send all parts, in as many pieces as the connection has room for; like `add`."""
        items, self._items = self._items, []
        self._changes = self._size_bytes = 0
        channel = self._channel
        while items:
            reading = FromRing()
            for item in items:
                item.from_ring = reading
            await self._lane.work(items)
            if channel.lag is not None and channel.lag.read_behind() > items[-1].commit_lsn:
                return False
            if not reading.is_stalled:
                break
            place = channel.lag
            await channel.outlet.wait_room()
            await asyncio.sleep(0)
            if place is None or channel.lag is not place or channel.is_closed:
                return False
            items = [item for item in items if item.skip_to(place)]
        return self._advance()

    def _advance(self) -> bool:
        """Record what the channel has been given whole."""
        channel, end = self._channel, self._end
        if channel.lag is None or channel.is_closed:
            return False
        if end is not None and channel.lag < end:
            channel.lag = end
        return True


def _is_truncated(lane: Lane, channel: SubscribedChannel, transaction: Transaction) -> bool:
    oids = {relation.oid for relation in transaction.truncated}
    return bool(oids) and any(
        channel in group.channels and group.entry.description.oid in oids
        for group in lane.groups.values()
    )
