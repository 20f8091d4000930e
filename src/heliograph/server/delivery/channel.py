"""One channel's subscription: what it still waits for and what it was told last."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from heliograph import limits
from heliograph.core.changelog.position import Fingerprint
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.ports.change_subscriptions import ChangeOutlet
from heliograph.server.delivery.counters import DeliveryCounters

if TYPE_CHECKING:
    from heliograph.server.delivery.positions import Continuation, StreamPosition
    from heliograph.server.delivery.rights_watch import ProvenRights


#: Sequence number behind every change of a transaction.
END_OF_TRANSACTION: Final = 1 << 62

#: What a channel is told whose role was dropped, or is not ours to assume.
ROLE_NOT_USABLE: Final = "role_not_usable: the role of this token can not be assumed"


class Place(NamedTuple):
    """A place in the stream: everything up to and including it was delivered.

    Attributes:
        commit_lsn: Commit position of a transaction.
        sequence: Index of a change in it.
    """

    commit_lsn: Lsn
    sequence: int

    def read_behind(self) -> Lsn:
        """Return the position behind which to read on: the same transaction unless it is whole."""
        is_whole = self.sequence == END_OF_TRANSACTION
        return self.commit_lsn if is_whole else Lsn(self.commit_lsn - 1)


class Marks(Protocol):
    """The positions of one channel that asked for them; `channel_marks.ChannelMarks`."""

    @property
    def subscription(self) -> Fingerprint:
        """Fingerprint of who subscribed to what."""
        ...

    @property
    def pending(self) -> str | None:
        """The reason of a ``resync`` that is still to be told."""
        ...

    def started(self) -> None:
        """Learn that the channel's own frames may go out."""
        ...

    def delivered(self) -> None:
        """Learn that the channel was sent one change."""
        ...

    def ended(self) -> None:
        """Learn that the channel has ended."""
        ...

    def resync(self, reason: str) -> None:
        """Tell the channel that changes may be missing."""
        ...

    def rights_changed(self) -> None:
        """Have the channel told that rights changed."""
        ...


class SubscribedChannel:
    """A channel's place in delivery; implements `ports.change_subscriptions.ChangeSubscription`.

    It is in one of three states: held (subscribed, reply not queued yet), live, or lagging (its
    connection has no room; it reads from the ring at its own pace until it has caught up).

    Attributes:
        owed: Position it began at; None once a change behind it was delivered.
        lag: Last place delivered, while lagging; None otherwise.
        passed_over: Commit position of the last transaction that its lane did not match or judge
            for it, because it was not there yet or lagged: it may be live only behind it.
        is_closed: Whether it ended.
        offer: The outlet's `offer_change` once it was started; None while it is held.
        is_catching_up: Whether a task reads from the ring for it.
        take_over: Called by `start` instead of sending what was held, when it replaces another
            subscription of its channel.
        catch_up: Called by `start` when it lags: more came than could be held.
        marks: Its positions; None for who did not ask for any.
        proven: What decided rights is known to have been the same since the position that its
            client came back with; None if nothing is known beyond this process.
    """

    __slots__ = (
        "_counters",
        "_held",
        "_on_close",
        "catch_up",
        "is_catching_up",
        "is_closed",
        "lag",
        "marks",
        "offer",
        "outlet",
        "owed",
        "passed_over",
        "proven",
        "take_over",
    )

    def __init__(
        self,
        outlet: ChangeOutlet,
        *,
        counters: DeliveryCounters,
        on_close: Callable[["SubscribedChannel"], None],
    ) -> None:
        """Begin held.

        Args:
            outlet: Where frames go.
            counters: Shared totals.
            on_close: Takes the channel out of the index.
        """
        self.outlet = outlet
        self.owed: StreamPosition | Continuation | None = None
        self.lag: Place | None = None
        self.passed_over: Lsn = ZERO_LSN
        self.is_closed = False
        self.offer: Callable[[Sequence[int], bytes], bool] | None = None
        self.is_catching_up = False
        self.take_over: Callable[[], None] | None = None
        self.catch_up: Callable[[], None] | None = None
        self.marks: Marks | None = None
        self.proven: ProvenRights | None = None
        self._counters = counters
        self._held: list[tuple[Sequence[int], bytes]] | None = []
        self._on_close = on_close

    def start(self) -> None:
        """Queue what was held and go live."""
        held, self._held = self._held, None
        self.offer = self.outlet.offer_change if self.marks is None else self._offer_and_mark
        if self.take_over is not None:
            self.take_over()
        else:
            for ids, data in held or ():
                self._send_now(ids, data)
            if self.lag is not None and self.catch_up is not None:
                self.catch_up()
        if self.marks is not None:
            self.marks.started()

    def close(self) -> None:
        """End delivery; idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._held = None
            if self.marks is not None:
                self.marks.ended()
            self._on_close(self)

    @property
    def is_held(self) -> bool:
        """Tell whether `start` was not called yet."""
        return self._held is not None

    def is_owed(self, xid: int, commit_lsn: Lsn) -> bool:
        """Tell whether a transaction belongs to the subscription."""
        return self.owed is None or self.owed.owes(xid, commit_lsn)

    def has_room(self) -> bool:
        """Tell whether one more change may be queued now."""
        if self._held is not None:
            return len(self._held) < limits.HELD_CHANGES_MAX
        return self.outlet.has_room()

    def send(self, ids: Sequence[int], data: bytes) -> None:
        """Queue one change; the caller has asked `has_room`."""
        self._counters.delivered += 1
        if self._held is not None:
            self._held.append((ids, data))
            return
        self._send_now(ids, data)

    def resync(self, reason: str) -> None:
        """Tell the channel that changes may be missing, and go on live if it lagged.

        Nothing that was skipped is sent afterwards: a client that loads its rows now must not be
        led back to an older version.
        """
        if self.is_closed:
            self.lag = None
        elif self.marks is not None:
            self.marks.resync(reason)
        else:
            self.lag = None
            self._counters.resyncs[reason] += 1
            self.outlet.send_system(status="error", message=f"resync: {reason}")

    def _send_now(self, ids: Sequence[int], data: bytes) -> None:
        self.outlet.send_change(ids, data)
        if self.marks is not None:
            self.marks.delivered()

    def _offer_and_mark(self, ids: Sequence[int], data: bytes) -> bool:
        is_taken = self.outlet.offer_change(ids, data)
        if is_taken and self.marks is not None:
            self.marks.delivered()
        return is_taken


def close_failed(
    channels: Iterable[SubscribedChannel],
    message: str = "internal_error: changes can not be delivered",
) -> None:
    """Break channels off so that their clients join again; by default because of a bug of ours."""
    for channel in channels:
        channel.outlet.close_failed(message)
        channel.close()


def close_hopeless(channels: Iterable[SubscribedChannel], message: str) -> None:
    """Close channels for good: joining again would not help."""
    for channel in channels:
        channel.outlet.close_hopeless(message)
        channel.close()
