"""A lane: the ordered work of one audience (role, claims, and the filters PostgreSQL judges).

Every channel belongs to one audience, so order within a lane is order within each channel, and a
slow judgement holds up nobody else. Work waits in the lane up to a bound; above it, and where a
transaction has many rows, the lane stops accepting and reads the change log from there, as soon as
it has worked off the rest.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from heliograph import limits
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import JudgementUnavailableError, RoleUnusableError, UnavailableError
from heliograph.postgres.judge import Judgement
from heliograph.server.delivery.channel import (
    ROLE_NOT_USABLE,
    Place,
    SubscribedChannel,
    close_failed,
    close_hopeless,
)
from heliograph.server.delivery.handing_over import HandOverServices, deliver
from heliograph.server.delivery.judging import Question
from heliograph.server.delivery.lane_item import LaneItem, LaneMark
from heliograph.server.delivery.rights_watch import ProvenRights

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
        self,
        judgement: Judgement,
        transaction: Transaction,
        table_oids: set[int],
        proven: ProvenRights | None,
    ) -> bool:
        """Tell whether rights may have changed between a commit and its judgement."""
        ...

    async def refill(self, lane: "Lane") -> None:
        """Give the lane more of what it missed, from the ring, or let it be live again."""
        ...

    def start_catch_up(self, lane: "Lane", channel: SubscribedChannel) -> None:
        """Have a lagging channel read from the ring at its own pace."""
        ...


class Lane:
    """The queue of one audience.

    Attributes:
        role: Database role.
        claims_json: The claims.
        judged: The filter terms that PostgreSQL judges for every channel here.
        audience: All three.
        channels: How many bindings of each channel are filed under this lane.
        behind: Position up to which everything was accepted before the lane overflowed, or before
            a transaction with many rows; what comes behind it is read from the ring. None while
            the lane is live.
        amid: Last place given to the live channels, if that is within a transaction.
        history: Grows when another history begins: what was read before it is void.
        timeouts_in_a_row: Judgements that timed out since the last that did not.
        judged_s: Seconds that the last judgement took.
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
        self.judged = judged
        self.audience = (role, claims_json, judged)
        self.groups: dict[tuple[object, ...], BindingGroup] = {}
        self.behind: Lsn | None = None
        self.amid: Place | None = None
        self.history = 0
        self.timeouts_in_a_row = 0
        self.judged_s = 0.0
        self._services = services
        self._pending: deque[LaneItem | LaneMark] = deque()
        self._pending_changes = 0
        self._pending_bytes = 0
        self._in_flight: Lsn | None = None
        self._is_running = False
        self._moved: asyncio.Future[None] | None = None
        self._begin_catch_up = partial(services.start_catch_up, self)

    def channels(self) -> set[SubscribedChannel]:
        """Return the channels of all its groups."""
        return {channel for group in self.groups.values() for channel in group.channels}

    @property
    def waiting_changes(self) -> int:
        """Changes that wait for judgement or delivery."""
        return self._pending_changes

    def first_unfinished(self) -> Lsn | None:
        """Return the commit position of the first transaction not delivered yet."""
        if self._in_flight is not None:
            return self._in_flight
        return self._pending[0].commit_lsn if self._pending else None

    @property
    def is_slow(self) -> bool:
        """Whether its judgements may take longer than others should wait."""
        return (
            bool(self.judged)
            or self.timeouts_in_a_row > 0
            or self.judged_s > limits.JUDGEMENT_SLOW_S
        )

    def is_idle(self) -> bool:
        """Tell whether nothing waits."""
        return not self._pending and self._in_flight is None

    def fail(self, _item: LaneItem | None = None) -> None:
        """Close every channel: a bug met the work of this lane."""
        close_failed(self.channels())

    def moved(self) -> asyncio.Future[None]:
        """Return what is done when the lane has worked on; to be awaited with `asyncio.wait`."""
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        return self._moved

    def _move(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None and not moved.done():
            moved.set_result(None)

    def restart(self) -> None:
        """Drop what waits or is being judged: it belongs to a history that ended."""
        self.history += 1
        self._pending.clear()
        self._pending_changes = self._pending_bytes = 0
        self.behind = self.amid = None
        for channel in self.channels():
            channel.lag = channel.owed = None
            channel.passed_over = ZERO_LSN

    def push(self, item: LaneItem) -> None:
        """Take work; delivers at once when nobody has to be asked and nothing waits."""
        if self.behind is not None:
            return
        if not (self._is_running or self._services.must_look or item.needs_judge()):
            self._deliver_unasked(item)
        elif self.is_full():
            self.leave_to_ring(item.commit_lsn)
        else:
            self.append(item)

    def append(self, item: LaneItem) -> None:
        """Queue work whatever waits already: refilling an overflown lane."""
        self._pending.extend(item.parts())
        self._pending_changes += len(item.matches)
        self._pending_bytes += item.size_bytes()
        self._start()

    def leave_to_ring(self, commit_lsn: Lsn) -> None:
        """Accept nothing from a transaction on, and read on from there once the rest is done."""
        if self.behind is None:
            self.behind = Lsn(commit_lsn - 1)
            self._start()

    def tell_in_order(self, mark: LaneMark) -> None:
        """Have something told behind everything that waits, and before what comes later."""
        if self.is_idle():
            mark.tell()
            return
        self._pending.append(mark)
        self._start()

    def is_full(self) -> bool:
        """Tell whether as much waits as may wait."""
        return (
            self._pending_changes > limits.LANE_PENDING_CHANGES_MAX
            or self._pending_bytes > limits.LANE_PENDING_BYTES_MAX
        )

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._services.spawn_lane(self)

    async def run(self) -> None:
        """Work until nothing waits."""
        try:
            while self._pending or self.behind is not None:
                if not self._pending:
                    await self._services.refill(self)
                    self._move()
                    # Thousands of transactions may hold nothing for this lane.
                    await asyncio.sleep(0)
                    continue
                items, mark = self._take()
                if items:
                    self._in_flight = items[0].commit_lsn
                    await self.work_live(items)
                    self._in_flight = None
                if mark is not None:
                    mark.tell()
                self._move()
        finally:
            self._in_flight = None
            self._is_running = False
            self._move()

    async def work_live(self, items: Sequence[LaneItem]) -> None:
        """Do `work` for all who are live, and note if that ends amid a transaction."""
        history, last = self.history, items[-1]
        place = Place(last.commit_lsn, last.matches[-1].change.sequence)
        await self.work(items)
        if history == self.history:
            self.amid = None if last.is_last else place
        self._move()

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
        history = self.history
        items = [item for item in items if item.drop_untaken()]
        if not items:
            return
        question = Question()
        for item in items:
            if item.stale_reason() is None:
                self._services.judging.ask(item.matches, question)
        if not question.row_count and not self._services.must_look:
            for item in items:
                if not self._tell_if_changed(item, None):
                    self._deliver_unasked(item)
            return
        judgement = await self._judge(question, items)
        if history != self.history or judgement is None:
            return
        self.timeouts_in_a_row = 0
        for item in items:
            # Each at its place: what is older must not follow a resync that was told for a later
            # one, or it would lead back whoever has loaded since.
            if not self._tell_if_changed(item, judgement):
                self._deliver(item, question, judgement)

    async def _judge(self, question: Question, items: Sequence[LaneItem]) -> Judgement | None:
        """Judge; None when that failed and whoever is concerned was told."""
        try:
            return await self._services.judge(self, question, items)
        except RoleUnusableError:
            self._close_all(items, ROLE_NOT_USABLE)
        except JudgementUnavailableError as error:
            self._give_up(items, error)
        except UnavailableError:
            self._resync_all(items, "judgement_unavailable")
        return None

    def _tell_if_changed(self, item: LaneItem, judgement: Judgement | None) -> bool:
        """Tell the channels of what may not be delivered, if its table or rights have changed."""
        reason = item.stale_reason()
        if reason is None and judgement is not None and self._rights_changed(item, judgement):
            reason = "rights_changed"
        if reason is not None:
            self._resync_all([item], reason)
        return reason is not None

    def _rights_changed(self, item: LaneItem, judgement: Judgement) -> bool:
        proven = None if item.only is None else item.only.proven
        return self._services.rights_changed(
            judgement, item.dispatched.transaction, item.tables(), proven
        )

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
        close_hopeless(_channels_of(items), message)


def _channels_of(items: Sequence[LaneItem]) -> set[SubscribedChannel]:
    return {channel for item in items for channel in item.channels()}
