"""One channel's positions, and what makes a ``resync`` wait.

Whoever keeps positions must be told when rights changed, even where no row did (`rights_teller`);
that is told once in `limits.RIGHTS_TOLD_INTERVAL_S` seconds at the most, and no position is told
while it is still to be told, so that a client which is cut off meanwhile is told after all.

Who is told ``resync`` loads at once, so it is told when the load can see what it is for: COMMIT may
wait for a synchronous standby when its transaction has been read from the WAL, and what a table's
`late_writers` wrote is in no stream. It goes on behind what is known to be visible.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol, get_args

from heliograph import limits
from heliograph.core.changelog.history import Discontinuity
from heliograph.core.changelog.position import SEQUENCE_END, Fingerprint, Position
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.channel import (
    END_OF_TRANSACTION,
    Marks,
    Place,
    SubscribedChannel,
    close_failed,
)
from heliograph.server.delivery.marks import PositionMarks
from heliograph.server.delivery.positions import Continuation, StreamPosition

if TYPE_CHECKING:
    from heliograph.server.delivery.lane import Lane

_OTHER_HISTORY: Final = frozenset[str](get_args(Discontinuity))


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
        "_first_cause",
        "_is_due",
        "_lane",
        "_owner",
        "_resynced_for",
        "_resynced_s",
        "_standing",
        "_unmarked",
        "_waits_since_s",
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
        self._first_cause: Lsn = ZERO_LSN
        self._waits_since_s = 0.0
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
            self._have_pending("rights_changed")

    def begin_with_resync(self, reason: str, owed: Sequence[Transaction]) -> None:
        """Tell a channel that has not started why it does not go on where its client was.

        Args:
            reason: Why.
            owed: What was dispatched and its client does not see yet, in commit order.
        """
        channel = self._channel
        if self._standing.has_late_writers():
            self._have_pending(reason)
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
        self._have_pending(reason)
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
        unseen = self._owner.parts.unsettled.first_commit_lsn()
        if unseen is not None and self.pending_behind >= unseen:
            self.pending = reason
            self._wait_from(self.pending_behind)
        return self.pending is None

    def _have_pending(self, reason: str) -> None:
        self.pending_behind = self._owner.parts.places.last_dispatched()
        if self.pending is None:
            self._wait_from(self.pending_behind)
        if self._says_more(reason):
            self.pending = reason

    def _says_more(self, reason: str) -> bool:
        """Tell whether a reason is told instead of the one that waits.

        The earlier one is kept where it would have to wait itself.
        """
        if self.pending is None:
            return True
        more = _weight(reason) - _weight(self.pending)
        return more > 0 or (more == 0 and not self._is_early(reason))

    def _wait_from(self, cause: Lsn) -> None:
        self._first_cause = cause
        self._waits_since_s = self._owner.parts.clock.monotonic_s()

    def _must_be_seen(self) -> Lsn:
        """Return what a load must show: all causes, but where they come without pause the first.

        What came behind it is told again.
        """
        waited_s = self._owner.parts.clock.monotonic_s() - self._waits_since_s
        is_long = waited_s >= limits.RIGHTS_TOLD_INTERVAL_S
        return self._first_cause if is_long else self.pending_behind

    def _is_early(self, reason: str) -> bool:
        """Tell whether it was told that a moment ago, or something else that made it load.

        In another history no earlier position means anything: that is told each time.
        """
        if reason in _OTHER_HISTORY:
            return False
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
        if visible < self._must_be_seen():
            return None
        if place <= Place(visible, END_OF_TRANSACTION):
            return place
        if channel.lag is not None:
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


def _weight(reason: str) -> int:
    """Return how much a reason says; that rights changed follows from most of the others."""
    if reason == "rights_changed":
        return 0
    return 2 if reason in _OTHER_HISTORY else 1


def _whole(place: Place) -> Place:
    """Say of a place before a transaction's first change that it is behind the one before."""
    if place.sequence >= 0:
        return place
    return Place(Lsn(place.commit_lsn - 1), END_OF_TRANSACTION)
