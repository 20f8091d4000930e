"""Position marks: telling the channels that asked for it how far they have been given everything.

A mark follows the changes it stands for in the same write: before the connections are flushed,
every channel that was sent something is marked once, however much it was. Within a transaction that
is done only after many changes, so that a client which waits for marks sees transactions whole. A
channel that had nothing to send is marked every `limits.POSITION_IDLE_S` seconds.

Whoever keeps positions must be told when rights changed, even where no row did (`rights_teller`);
that is told once in `limits.RIGHTS_TOLD_INTERVAL_S` seconds at the most, and no mark is given while
it is still to be told, so that a client which is cut off meanwhile is told after all.

Who is told ``resync`` loads at once, so it is told when the load can see what it is for: COMMIT may
wait for a synchronous standby when its transaction has been read from the WAL, and what a table's
`late_writers` wrote is in no stream. It goes on behind what is known to be visible.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from heliograph import limits
from heliograph.core.changelog.position import SEQUENCE_END, Fingerprint, Position
from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import UnavailableError
from heliograph.ports.clock import Clock
from heliograph.server.delivery.channel import (
    END_OF_TRANSACTION,
    Marks,
    Place,
    SubscribedChannel,
    close_failed,
)
from heliograph.server.delivery.continuity import Continuity
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.positions import Continuation, StreamPosition, Unsettled
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.supervision import Supervisor

if TYPE_CHECKING:
    from heliograph.server.delivery.lane import Lane


class Places(Protocol):
    """Where lanes are; the dispatcher."""

    def finished_place(self, lane: "Lane | None") -> Place:
        """Return the place up to which a lane has given its live channels everything."""
        ...

    def last_dispatched(self) -> Lsn:
        """Return the position up to which every transaction was dispatched."""
        ...


@dataclass(frozen=True, slots=True)
class MarkParts:
    """What marks are made from.

    Attributes:
        ring: The change log.
        continuity: The epoch, and what outlives the process.
        progress: How far the stream was received.
        unsettled: What may not be visible yet.
        settle: Has it looked at whether that is visible; `PositionMarks.settled` is called then.
        places: Where lanes are.
        clock: For intervals.
        counters: Totals to add to.
        supervisor: Told of what nobody foresaw.
    """

    ring: Ring
    continuity: Continuity
    progress: StreamProgress
    unsettled: Unsettled
    settle: Callable[[], None]
    places: Places
    clock: Clock
    counters: DeliveryCounters
    supervisor: Supervisor


class Standing(Protocol):
    """What is known of one channel's tables."""

    def rights(self) -> Fingerprint:
        """Return the fingerprint of what decides now what the channel may see."""
        ...

    def is_complete(self) -> bool:
        """Tell whether all its tables are in the stream; no position is told otherwise."""
        ...

    def has_late_writers(self) -> bool:
        """Tell whether any of them has; then no ``resync`` is told, either."""
        ...


class PositionMarks:
    """All channels that asked for positions; belongs to the event loop."""

    def __init__(self, parts: MarkParts) -> None:
        """Start without any channel."""
        self.parts = parts
        self._due: dict[ChannelMarks, None] = {}
        self._late: dict[ChannelMarks, None] = {}
        self._unsettled: dict[ChannelMarks, None] = {}
        self._channels: dict[ChannelMarks, None] = {}
        self._awaited: Lsn = ZERO_LSN
        self._is_awaiting = False

    def __len__(self) -> int:
        """Return how many channels have started that asked for positions."""
        return len(self._channels)

    def add(self, marks: "ChannelMarks") -> None:
        """Look after a channel that has started."""
        self._channels[marks] = None
        self._late[marks] = None

    def due(self, marks: "ChannelMarks") -> None:
        """Mark a channel before connections are flushed next."""
        self._due[marks] = None

    def discard(self, marks: "ChannelMarks") -> None:
        """Forget a channel that has ended."""
        for known in (self._channels, self._due, self._late, self._unsettled):
            known.pop(marks, None)

    def flush(self) -> None:
        """Mark every channel that was sent something; call it before connections are flushed."""
        if not self._due:
            return
        due, self._due = self._due, {}
        for marks in due:
            if not self._tell(marks):
                self._late[marks] = None

    def _tell(self, marks: "ChannelMarks") -> bool:
        """Do `ChannelMarks.tell`; a bug in it ends that channel only."""
        try:
            return marks.tell()
        except Exception as error:  # noqa: BLE001 - one channel's bug must not stop the others
            self.parts.supervisor.note(error, name="mark", on_failure=marks.fail)
            return True

    async def run(self) -> None:
        """Mark what could not be marked at once, and who is idle, until cancelled."""
        while True:
            await asyncio.sleep(limits.POSITION_CHECK_INTERVAL_S)
            self.check()

    def settled(self) -> None:
        """Learn what is visible by now: those who wait for that are told."""
        waiting, self._unsettled = self._unsettled, {}
        for marks in waiting:
            self._tell(marks)

    def await_settled(self, marks: "ChannelMarks") -> None:
        """Have it looked at what is visible, and tell a channel then."""
        self._unsettled[marks] = None
        self.parts.settle()

    def await_stream(self, position: Lsn) -> None:
        """Have an idle stream moved: somebody's first mark waits until it has passed a position."""
        self._awaited = max(self._awaited, position)
        if not self._is_awaiting:
            self._is_awaiting = True
            self.parts.supervisor.spawn(self._move_stream(), name="move stream")

    async def _move_stream(self) -> None:
        try:
            # Nothing is said if it stands still: whoever waits asks again.
            with suppress(UnavailableError):
                await self.parts.progress.wait(self._awaited, limits.STREAM_WAIT_S)
        finally:
            self._is_awaiting, self._awaited = False, ZERO_LSN

    def check(self) -> None:
        """Do one round of `run`."""
        self.flush()
        late, self._late = self._late, {}
        for marks in late:
            if not self._tell(marks):
                self._late[marks] = None
        idle_since_s = self.parts.clock.monotonic_s() - limits.POSITION_IDLE_S
        for marks in tuple(self._channels):
            if marks.told_s <= idle_since_s:
                self._tell(marks)


class ChannelMarks:
    """The marks of one channel.

    Attributes:
        subscription: Fingerprint of who subscribed to what.
        pending: The reason of a ``resync`` that is still to be told.
        pending_behind: What its client must be able to see when it is told.
        told_s: When it was told a position last.
    """

    __slots__ = (
        "_channel",
        "_is_due",
        "_lane",
        "_owner",
        "_resynced_for",
        "_resynced_s",
        "_standing",
        "_unmarked",
        "pending",
        "pending_behind",
        "subscription",
        "told_s",
    )

    def __init__(
        self,
        owner: PositionMarks,
        channel: SubscribedChannel,
        lane: "Lane",
        *,
        subscription: Fingerprint,
        standing: Standing,
    ) -> None:
        """Begin before the channel has started.

        Args:
            owner: Looks after it.
            channel: The channel.
            lane: Its lane.
            subscription: Fingerprint of who subscribed to what.
            standing: What is known of its tables.
        """
        self._owner = owner
        self._channel = channel
        self._lane = lane
        self._standing = standing
        self._unmarked = 0
        self._is_due = False
        self.pending: str | None = None
        self.pending_behind: Lsn = ZERO_LSN
        self._resynced_s = -limits.RIGHTS_TOLD_INTERVAL_S
        self._resynced_for: str | None = None
        self.subscription = subscription
        self.told_s = 0.0

    # --- what the channel says ------------------------------------------------------------------

    def started(self) -> None:
        """Learn that the channel's own frames may go out."""
        self.told_s = self._owner.parts.clock.monotonic_s()
        self._owner.add(self)
        if self.pending is not None:
            self._owner.due(self)

    def delivered(self) -> None:
        """Learn that the channel was sent one change."""
        self._unmarked += 1
        if not self._is_due:
            self._is_due = True
            self._owner.due(self)

    def ended(self) -> None:
        """Learn that the channel has ended."""
        self._owner.discard(self)

    def fail(self) -> None:
        """Close the channel: a bug met its marks."""
        close_failed((self._channel,))

    # --- what it is told ------------------------------------------------------------------------

    def tell(self) -> bool:
        """Tell the channel its position if there is one to tell; false if that must wait."""
        self._is_due = False
        channel = self._channel
        if channel.is_closed or channel.is_held:
            return True
        if self.pending is not None:
            return self._tell_pending()
        if (
            not channel.has_room()
            or not self._standing.is_complete()
            or self._standing.has_late_writers()
        ):
            return False
        place = self._place()
        if place is None:
            return False
        self._send(place, status="ok", message="position")
        return True

    def rights_changed(self) -> None:
        """Have the channel told that rights changed, soon if it was told that just now."""
        self._channel.proven = None
        self._resync("rights_changed")

    def carry_on(self, before: Marks | None) -> None:
        """Take the place of a channel's marks under an earlier token."""
        if before is not None and (
            before.pending is not None or before.subscription != self.subscription
        ):
            self.pending = "rights_changed"
            self.pending_behind = self._owner.parts.places.last_dispatched()

    def begin_with_resync(self, reason: str, owed: Sequence[Transaction]) -> None:
        """Tell a channel that has not started why it does not go on where its client was.

        Args:
            reason: Why.
            owed: What was dispatched and its client does not see yet, in commit order.
        """
        channel = self._channel
        if self._standing.has_late_writers():
            self.pending = reason
            self.pending_behind = self._owner.parts.places.last_dispatched()
            return
        place = channel.lag or self._owner.parts.places.finished_place(self._lane)
        if owed:
            # Be they changes of rights, who comes back with what is told now is told of them.
            place = min(place, Place(Lsn(owed[0].commit_lsn - 1), END_OF_TRANSACTION))
        self._send_resync(reason, place)

    def resync(self, reason: str) -> None:
        """Tell the channel that changes may be missing; it goes on from the position told.

        A channel that lagged reads on from there: its lane may have passed over some of what
        follows, and nothing behind a position may be missing.

        What it was told a moment ago is not told for each change that is skipped: no position is
        told until it is told again, so its client waits with what follows.
        """
        channel, parts = self._channel, self._owner.parts
        channel.proven = None
        if channel.lag is not None:
            place = max(parts.places.finished_place(self._lane), channel.lag)
            is_kept = parts.ring.covers(place.read_behind())
            channel.lag = place if is_kept else None
        self._resync(reason)

    # --- inside ---------------------------------------------------------------------------------

    def _resync(self, reason: str) -> None:
        if self.pending is None or not self._is_early(reason):
            self.pending = reason
        self.pending_behind = self._owner.parts.places.last_dispatched()
        if not self._tell_pending():
            self._owner.due(self)

    def _tell_pending(self) -> bool:
        """Tell what waits to be told, if it may be told now."""
        reason = self.pending
        if reason is None or self._channel.is_held or self._is_early(reason):
            return False
        if self._standing.has_late_writers():
            return False
        place = self._place_of_load()
        if place is None:
            self._owner.await_settled(self)
            return False
        self.pending = None
        self._send_resync(reason, place)
        return True

    def _is_early(self, reason: str) -> bool:
        """Tell whether it was told that a moment ago, or something else that made it load."""
        now_s = self._owner.parts.clock.monotonic_s()
        is_moment_ago = now_s - self._resynced_s < limits.RIGHTS_TOLD_INTERVAL_S
        return is_moment_ago and reason in {self._resynced_for, "rights_changed"}

    def _place_of_load(self) -> Place | None:
        """Return from where a client goes on that loads now; None if it would miss something."""
        channel, parts = self._channel, self._owner.parts
        place = channel.lag or parts.places.finished_place(self._lane)
        unseen = parts.unsettled.first_commit_lsn()
        if unseen is None:
            return place
        visible = Lsn(unseen - 1)
        if place <= Place(visible, END_OF_TRANSACTION):
            return place if self.pending_behind <= visible else None
        if visible < self.pending_behind or channel.lag is not None:
            return None
        return self._go_back(visible)

    def _go_back(self, visible: Lsn) -> Place | None:
        """Have a live channel take once more what may not be visible to its client's load."""
        channel, parts = self._channel, self._owner.parts
        if channel.catch_up is None or not parts.ring.covers(visible):
            return None
        place = channel.lag = Place(visible, END_OF_TRANSACTION)
        if isinstance(channel.owed, Continuation):
            # It began behind that; from now on all that follows is owed.
            channel.owed = None
        channel.catch_up()
        return place

    def _place(self) -> Place | None:
        """Return the place to tell now; None if it is within what should be seen whole."""
        channel, owed = self._channel, self._channel.owed
        place = _whole(channel.lag or self._owner.parts.places.finished_place(self._lane))
        if isinstance(owed, StreamPosition) and place.commit_lsn + 1 < owed.insert_lsn:
            # What it is owed before that can not be said by a place, and its lane may not have come
            # as far as the channel began.
            self._owner.await_stream(owed.insert_lsn)
            return None
        is_whole = place.sequence == END_OF_TRANSACTION
        return place if is_whole or self._unmarked >= limits.POSITION_INSIDE_CHANGES else None

    def _send_resync(self, reason: str, place: Place) -> None:
        self._owner.parts.counters.resyncs[reason] += 1
        self._resynced_s = self._owner.parts.clock.monotonic_s()
        self._resynced_for = reason
        self._send(place, status="error", message="resync", reason=reason)

    def _send(self, place: Place, *, status: str, message: str, **details: str) -> None:
        parts, place = self._owner.parts, _whole(place)
        is_whole = place.sequence == END_OF_TRANSACTION
        parts.continuity.note_received(parts.progress.passed)
        position = Position(
            parts.continuity.epoch,
            place.commit_lsn,
            SEQUENCE_END if is_whole else place.sequence,
            self.subscription,
            self._standing.rights(),
        )
        details["position"] = parts.continuity.codec.encode(position)
        self._unmarked = 0
        self.told_s = parts.clock.monotonic_s()
        self._channel.outlet.send_system(status=status, message=message, details=details)


def _whole(place: Place) -> Place:
    """Say of a place before a transaction's first change that it is behind the one before."""
    if place.sequence >= 0:
        return place
    return Place(Lsn(place.commit_lsn - 1), END_OF_TRANSACTION)
