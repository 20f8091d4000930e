"""A lane: the ordered work of one audience (role, claims, and the filters PostgreSQL judges).

Every channel belongs to one audience, so order within a lane is order within each channel, and a
slow judgement holds up nobody else. Work waits in the lane up to a bound; above it the lane stops
accepting and reads the change log from where it stopped, as soon as it has worked off the rest.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from heliograph import limits
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import JudgementUnavailableError, RoleUnusableError, UnavailableError
from heliograph.postgres.judge import Judgement
from heliograph.server.delivery.channel import SubscribedChannel, close_failed
from heliograph.server.delivery.handing_over import HandOverServices, deliver
from heliograph.server.delivery.judging import Question
from heliograph.server.delivery.lane_item import LaneItem, LaneMark

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import BindingGroup


#: For what is delivered without asking; nothing is ever added to it.
_NOTHING_ASKED: Final = Question()


class LaneServices(HandOverServices, Protocol):
    """What lanes need from delivery as a whole."""

    def spawn_lane(self, lane: "Lane") -> None:
        """Have ``lane.run`` executed by a task."""
        ...

    @property
    def must_look(self) -> bool:
        """Whether rights must be compared even where nothing is judged."""
        ...

    async def judge(self, lane: "Lane", question: Question, items: Sequence[LaneItem]) -> Judgement:
        """Judge, repeating until the snapshot sees everything it must and the stream is past it."""
        ...

    def rights_changed(
        self, judgement: Judgement, transaction: Transaction, table_oids: set[int]
    ) -> bool:
        """Tell whether rights may have changed between a commit and its judgement."""
        ...

    def refill(self, lane: "Lane") -> bool:
        """Push what the lane missed, from the ring; false when there is nothing (more)."""
        ...

    def start_catch_up(self, lane: "Lane", channel: SubscribedChannel) -> None:
        """Have a lagging channel read from the ring at its own pace."""
        ...


class Lane:
    """The queue of one audience.

    Attributes:
        role: Database role.
        claims_json: The claims.
        audience: Both, and the filter terms that PostgreSQL judges for every channel here.
        channels: How many bindings of each channel are filed under this lane.
        behind: Last transaction accepted before the lane overflowed; None while it is live.
        timeouts_in_a_row: Judgements that timed out since the last that did not.
    """

    def __init__(
        self,
        role: str,
        claims_json: str,
        services: LaneServices,
        *,
        judged: frozenset[FilterTerm] = frozenset(),
    ) -> None:
        """Make an empty lane."""
        self.role = role
        self.claims_json = claims_json
        self.audience = (role, claims_json, judged)
        self.groups: dict[tuple[object, ...], BindingGroup] = {}
        self.behind: Lsn | None = None
        self.timeouts_in_a_row = 0
        self._services = services
        self._pending: deque[LaneItem | LaneMark] = deque()
        self._pending_changes = 0
        self._pending_bytes = 0
        self._in_flight: Sequence[LaneItem] = ()
        self._is_running = False
        self._history = 0
        self._last_pushed: Lsn | None = None
        self._skipped: Lsn | None = None
        self._drained: list[Callable[[], None]] = []
        self._begin_catch_up = partial(services.start_catch_up, self)

    def channels(self) -> set[SubscribedChannel]:
        """Return the channels of all its groups."""
        return {channel for group in self.groups.values() for channel in group.channels}

    @property
    def waiting_changes(self) -> int:
        """Changes that wait for judgement or delivery."""
        return self._pending_changes

    def first_unfinished(self, channel: SubscribedChannel | None = None) -> Lsn | None:
        """Return the commit position of the first transaction not delivered yet.

        What waits for one channel that has just begun may be older than what was delivered to the
        others; it counts for that channel only.

        Args:
            channel: For whom; None: for the channels that have been live all the time.
        """
        waiting = chain(self._in_flight, self._pending)
        positions = (
            item.commit_lsn for item in waiting if item.only is None or item.only is channel
        )
        return min(positions, default=None)

    def is_idle(self) -> bool:
        """Tell whether nothing waits."""
        return not self._pending and not self._in_flight

    def fail(self, _item: LaneItem | None = None) -> None:
        """Close every channel: a bug met the work of this lane."""
        close_failed(self.channels())

    def on_drained(self, call: Callable[[], None]) -> None:
        """Have ``call`` called once nothing waits any more."""
        if self.is_idle():
            call()
        else:
            self._drained.append(call)

    def restart(self) -> None:
        """Drop what waits or is being judged: it belongs to a history that ended."""
        self._history += 1
        self._pending.clear()
        self._pending_changes = self._pending_bytes = 0
        self.behind = None
        for channel in self.channels():
            channel.lag = channel.owed = None

    def push(self, item: LaneItem) -> None:
        """Take work; delivers at once when nobody has to be asked and nothing waits."""
        if item.only is None and (self.behind is not None or item.commit_lsn == self._skipped):
            return
        if not (self._is_running or self._services.must_look or item.needs_judge()):
            self._deliver_unasked(item)
            self._note_pushed(item)
            return
        if item.only is None and self._is_full():
            self._fall_behind(item)
            return
        self.append(item)

    def append(self, item: LaneItem) -> None:
        """Queue work whatever waits already (refilling an overflown lane, or one channel)."""
        self._pending.extend(item.parts())
        self._pending_changes += len(item.matches)
        self._pending_bytes += item.size_bytes()
        self._note_pushed(item)
        self._start()

    def _note_pushed(self, item: LaneItem) -> None:
        if item.only is None:
            self._last_pushed = item.commit_lsn

    def skip(self, commit_lsn: Lsn) -> bool:
        """Take nothing more of a transaction; false if that was said before."""
        is_new, self._skipped = self._skipped != commit_lsn, commit_lsn
        return is_new

    def tell_in_order(self, mark: LaneMark) -> None:
        """Have something told behind everything that waits, and before what comes later."""
        if self.is_idle():
            mark.tell()
            return
        self._pending.append(mark)
        self._start()

    def _is_full(self) -> bool:
        return (
            self._pending_changes > limits.LANE_PENDING_CHANGES_MAX
            or self._pending_bytes > limits.LANE_PENDING_BYTES_MAX
        )

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._services.spawn_lane(self)

    def _fall_behind(self, item: LaneItem) -> None:
        """Stop accepting, and remember from where to read the ring.

        If an earlier part of the same transaction was accepted (it is too large for memory, and
        comes in segments), reading starts with its mark in the ring, which is told as ``resync``.
        """
        last = self._last_pushed or item.commit_lsn
        self.behind = Lsn(last - 1) if last == item.commit_lsn else last

    async def run(self) -> None:
        """Work until nothing waits."""
        try:
            while self._pending or (self.behind is not None and self._services.refill(self)):
                items, mark = self._take()
                if items:
                    self._in_flight = items
                    await self.work(items)
                    self._in_flight = ()
                if mark is not None:
                    mark.tell()
        finally:
            self._in_flight = ()
            self._is_running = False
            drained, self._drained = self._drained, []
            for call in drained:
                call()

    def _take(self) -> tuple[list[LaneItem], LaneMark | None]:
        """Take at least one item, up to the size of a good batch, or up to the next mark."""
        items: list[LaneItem] = []
        count = 0
        while self._pending and count < limits.JUDGEMENT_BATCH_ROWS_MAX:
            item = self._pending.popleft()
            if isinstance(item, LaneMark):
                return items, item
            items.append(item)
            count += len(item.matches)
            self._pending_changes -= len(item.matches)
            self._pending_bytes -= item.size_bytes()
        if not self._pending_changes:
            self._pending_bytes = 0
        return items, None

    async def work(self, items: Sequence[LaneItem]) -> None:
        """Judge and deliver; what can not be judged becomes ``resync``."""
        history = self._history
        items = self._without_stale(items)
        if not items:
            return
        question = Question()
        for item in items:
            self._services.judging.ask(item.matches, question)
        if not question.row_count and not self._services.must_look:
            for item in items:
                self._deliver_unasked(item)
            return
        judgement = await self._judge(question, items)
        if history != self._history or judgement is None:
            return
        self.timeouts_in_a_row = 0
        for item in self._without_stale(items):
            if self._rights_changed(item, judgement):
                self._resync_all([item], "rights_changed")
            else:
                self._deliver(item, question, judgement)

    async def _judge(self, question: Question, items: Sequence[LaneItem]) -> Judgement | None:
        """Judge; None when that failed and whoever is concerned was told."""
        try:
            return await self._services.judge(self, question, items)
        except RoleUnusableError:
            self._close_all(items, "role_not_usable: the role of this token can not be assumed")
        except JudgementUnavailableError as error:
            self._give_up(items, error)
        except UnavailableError:
            self._resync_all(items, "judgement_unavailable")
        return None

    def _without_stale(self, items: Sequence[LaneItem]) -> list[LaneItem]:
        """Drop what was matched against a table that has changed since; its channels are told."""
        fresh: list[LaneItem] = []
        for item in items:
            stale = next((match for match in item.matches if match.is_stale()), None)
            if stale is None:
                fresh.append(item)
            else:
                self._resync_all([item], stale.group.stale_reason)
        return fresh

    def _rights_changed(self, item: LaneItem, judgement: Judgement) -> bool:
        return self._services.rights_changed(judgement, item.dispatched.transaction, item.tables())

    def _deliver_unasked(self, item: LaneItem) -> None:
        """Deliver what nobody has to be asked about, unless it is older than the rights."""
        commit_lsn = item.commit_lsn
        for match in item.matches:
            if match.group.entry.valid_since > commit_lsn:
                self._resync_all([item], "rights_changed")
                return
        self._deliver(item, _NOTHING_ASKED, None)

    def _deliver(self, item: LaneItem, question: Question, judgement: Judgement | None) -> None:
        deliver(self._services, item, question, judgement, self._begin_catch_up)

    def _give_up(self, items: Sequence[LaneItem], error: JudgementUnavailableError) -> None:
        self.timeouts_in_a_row += 1 if error.timed_out else 0
        if self.timeouts_in_a_row >= limits.JUDGEMENT_TIMEOUTS_IN_A_ROW_MAX:
            self._close_all(
                items, "policy_too_slow: judging changes for this role keeps timing out"
            )
        else:
            self._resync_all(items, "judgement_timeout" if error.timed_out else error.code)

    def _resync_all(self, items: Sequence[LaneItem], reason: str) -> None:
        for channel in _channels_of(items):
            channel.resync(reason)

    def _close_all(self, items: Sequence[LaneItem], message: str) -> None:
        for channel in _channels_of(items):
            channel.outlet.close_hopeless(message)
            channel.close()


def _channels_of(items: Sequence[LaneItem]) -> set[SubscribedChannel]:
    return {channel for item in items for channel in item.channels()}
