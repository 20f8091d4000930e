"""A channel whose connection has no room reads from the ring at its own pace.

It left the live flow at a place (`SubscribedChannel.lag`). Whatever follows that place is read
from the ring, judged again under today's rights and sent as its connection drains. When it has
been given everything that its lane has given to those who are live, it is live again; both happen
without an await in between, so nothing is lost or sent twice. While those have only a part of a
transaction it waits until they have all of it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import UnavailableError
from heliograph.server.delivery.catch_up_places import CatchUpPlaces
from heliograph.server.delivery.channel import (
    END_OF_TRANSACTION,
    Place,
    SubscribedChannel,
    close_failed,
)
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import FromRing, LaneItem
from heliograph.server.delivery.large_transactions import ROWS_LOST, is_large

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import BindingGroup

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

    def groups_of(self, lane: Lane, channel: SubscribedChannel | None) -> list["BindingGroup"]:
        """Return the groups of a channel."""
        ...

    def item(
        self,
        lane: Lane,
        transaction: Transaction,
        channel: SubscribedChannel | None,
        groups: Sequence["BindingGroup"],
    ) -> LaneItem | None:
        """Match one transaction from the ring, which is not large, against groups of one channel.

        Raises:
            RemoteProtocolError: If its rows are malformed.
        """
        ...

    def items(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel | None
    ) -> AsyncGenerator[LaneItem | None]:
        """Match one large transaction from the ring against one channel, behind its place.

        Raises:
            LimitExceededError: If its rows can not be had any more; so for the others.
            StorageError: As above.
            RemoteProtocolError: As above.
        """
        ...


async def catch_up(
    reader: RingReader, lane: Lane, channel: SubscribedChannel, places: CatchUpPlaces
) -> None:
    """Bring a lagging channel back to the live flow, or tell it ``resync``."""
    channel.is_catching_up = True
    try:
        await _catch_up(reader, lane, channel, places)
    finally:
        channel.is_catching_up = False


async def _catch_up(
    reader: RingReader, lane: Lane, channel: SubscribedChannel, places: CatchUpPlaces
) -> None:
    while True:
        await channel.outlet.wait_room()
        place = channel.lag
        if place is None or channel.is_closed:
            return
        if reader.last_dispatched() < place.read_behind():
            await _reach(reader, channel, place.read_behind())
            continue
        if not reader.ring.covers(place.read_behind()):
            channel.resync("fell_behind")
            continue
        following, end = _next(reader, lane, place, 1)
        if not following and _may_be_live(lane, channel, place, end):
            channel.lag = None
            return
        if not following and reader.last_dispatched() < channel.passed_over:
            await _reach(reader, channel, channel.passed_over)
            continue
        if not following:
            await asyncio.wait((lane.moved(),))
            continue
        turn = _Turn(lane, channel, place)
        try:
            if is_large(following[0]):
                # Its readers take turns where its rows are kept.
                await _give_large(reader, turn, following[0])
            else:
                await _give(reader, turn, places)
        except ROWS_LOST:
            channel.resync("transaction_too_large")


async def _reach(reader: RingReader, channel: SubscribedChannel, lsn: Lsn) -> None:
    """Wait for the stream to come as far as a channel needs it; its client may have to rejoin."""
    place = channel.lag
    try:
        await reader.reach(lsn)
    except UnavailableError:
        if channel.lag is place:
            close_failed((channel,))


def _next(
    reader: RingReader, lane: Lane, place: Place, limit: int
) -> tuple[list[Transaction], Lsn]:
    """Read what follows a place, up to where the lane has given everything to those who are live.

    Returns:
        The next transactions, and the position up to which the lane is done.
    """
    oids = {group.entry.description.oid for group in lane.groups.values()}
    found, _ = reader.ring.after(place.read_behind(), oids, limit)
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


async def _give(reader: RingReader, turn: "_Turn", places: CatchUpPlaces) -> None:
    """Send what follows, many small transactions judged together, when it is the channel's turn."""
    async with places.place(turn.lane):
        await _fill(reader, turn)
        is_given = await turn.give()
    while not is_given:
        await turn.wait_room()
        async with places.place(turn.lane):
            is_given = await turn.give()
    turn.finish()


async def _fill(reader: RingReader, turn: "_Turn") -> None:
    """Match what follows, up to a good batch, or to a TRUNCATE."""
    lane, channel = turn.lane, turn.channel
    if not turn.is_on() or not reader.ring.covers(turn.at.read_behind()):
        return
    following, _ = _next(reader, lane, turn.at, _TRANSACTIONS_AT_ONCE)
    groups = reader.groups_of(lane, channel)
    for number, transaction in enumerate(following, 1):
        if is_large(transaction):
            return
        item = reader.item(lane, transaction, channel, groups)
        if not turn.is_on():
            return
        for part in () if item is None else item.parts():
            turn.add(part)
        turn.end = Place(transaction.commit_lsn, END_OF_TRANSACTION)
        turn.is_truncated = _is_truncated(lane, channel, transaction)
        if turn.is_truncated or turn.is_enough():
            return
        if number % limits.CATCH_UP_TRANSACTIONS_PER_TURN == 0:
            await asyncio.sleep(0)
            groups = reader.groups_of(lane, channel)


async def _give_large(reader: RingReader, turn: "_Turn", transaction: Transaction) -> None:
    """Send one transaction, part by part."""
    lane, channel = turn.lane, turn.channel
    async with aclosing(reader.items(lane, transaction, channel)) as items:
        async for item in items:
            for part in () if item is None else item.parts():
                turn.add(part)
                while turn.is_enough() and not await turn.give():
                    await turn.wait_room()
            is_past = channel.lag is None or channel.lag.read_behind() >= transaction.commit_lsn
            if is_past or channel.is_closed:
                return
    while not await turn.give():
        await turn.wait_room()
    turn.end = Place(transaction.commit_lsn, END_OF_TRANSACTION)
    turn.is_truncated = _is_truncated(lane, channel, transaction)
    turn.finish()


class _Turn:
    """What one channel is given next, in batches that are judged together.

    Attributes:
        lane: The lane.
        channel: The channel.
        at: Where the channel was when it was looked at last.
        end: What it was given completely once all of this is given.
        is_truncated: Whether a table of its was emptied there.
    """

    def __init__(self, lane: Lane, channel: SubscribedChannel, place: Place) -> None:
        """Start empty, at a place."""
        self.lane = lane
        self.channel = channel
        self.at = place
        self.end: Place | None = None
        self.is_truncated = False
        self._batches: deque[list[LaneItem]] = deque()
        self._changes = 0
        self._size_bytes = 0

    def is_on(self) -> bool:
        """Tell whether the channel still wants what follows `at`."""
        return self.channel.lag is self.at and not self.channel.is_closed

    def add(self, item: LaneItem) -> None:
        """Take one part more."""
        if not self._batches or self.is_enough():
            self._batches.append([])
            self._changes = self._size_bytes = 0
        self._batches[-1].append(item)
        self._changes += len(item.matches)
        self._size_bytes += item.size_bytes()

    def is_enough(self) -> bool:
        """Tell whether the last batch should not get larger."""
        return bool(self._batches) and (
            self._changes >= limits.JUDGEMENT_BATCH_ROWS_MAX
            or self._size_bytes >= limits.OUTBOUND_BYTES_HIGH
        )

    async def give(self) -> bool:
        """Send as much as the connection has room for; false if it has none for the rest."""
        while self._batches and self.is_on():
            items = self._batches[0]
            reading = FromRing()
            for item in items:
                item.from_ring = reading
            await self.lane.work(items)
            place = self.channel.lag
            if place is None:
                break
            self.at = place
            if place.read_behind() > items[-1].commit_lsn:
                # It was told `resync`, and goes on from where its lane is: the rest of this turn
                # may be before that place or behind it.
                self._batches.clear()
                self.end = None
                break
            if reading.is_stalled:
                return False
            self._batches.popleft()
        return True

    async def wait_room(self) -> None:
        """Wait until the connection has room for what is left."""
        await self.channel.outlet.wait_room()
        await asyncio.sleep(0)
        place = self.at
        self._batches[0] = [item for item in self._batches[0] if item.skip_to(place)]

    def finish(self) -> None:
        """Record what the channel has been given completely."""
        if not self.is_on():
            return
        if self.end is not None and self.at < self.end:
            self.channel.lag = self.end
        if self.is_truncated:
            self.channel.resync("truncated")


def _is_truncated(lane: Lane, channel: SubscribedChannel, transaction: Transaction) -> bool:
    oids = {relation.oid for relation in transaction.truncated}
    return bool(oids) and any(
        channel in group.channels and group.entry.description.oid in oids
        for group in lane.groups.values()
    )
