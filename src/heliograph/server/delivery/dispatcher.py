"""From a transaction to the lanes it concerns; catch-up and refill for all lanes."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.matching.subscription_index import SubscriptionIndex
from heliograph.core.matching.visibility import LeaveEvents
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.transaction import Transaction
from heliograph.ports.clock import Clock
from heliograph.postgres.judge import Judgement
from heliograph.server.delivery.audience_judge import AudienceJudge
from heliograph.server.delivery.catch_up import catch_up, finished_up_to
from heliograph.server.delivery.catch_up_places import CatchUpPlaces
from heliograph.server.delivery.channel import (
    END_OF_TRANSACTION,
    Place,
    SubscribedChannel,
    close_failed,
)
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.judging import Judging, Question, VisibilityRules
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.lane_item import DispatchedTransaction, LaneItem
from heliograph.server.delivery.large_transactions import LargeTransactions, is_large
from heliograph.server.delivery.positions import Continuation, StreamPosition
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_watch import ProvenRights
from heliograph.server.delivery.ring_reading import RingReading, tell_resync
from heliograph.server.delivery.table_registry import TableRegistry
from heliograph.server.metrics import Metrics
from heliograph.server.supervision import Supervisor

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import Audience, BindingGroup, Match


@dataclass(frozen=True, slots=True)
class DispatcherParts:
    """What the dispatcher is built on.

    Attributes:
        ring: The change log.
        judge: Judges for all lanes.
        registry: Tables and rights.
        progress: How far the stream was received.
        supervisor: Owns the lanes' tasks.
        clock: For durations.
        rules: ``delete_visibility`` and ``leave_events``.
        metrics: For the histograms.
        counters: Totals to add to.
    """

    ring: Ring
    judge: AudienceJudge
    registry: TableRegistry
    progress: StreamProgress
    supervisor: Supervisor
    clock: Clock
    rules: VisibilityRules
    metrics: Metrics
    counters: DeliveryCounters


class Dispatcher:
    """Implements `lane.LaneServices`; belongs to the event loop.

    Attributes:
        index: Which groups a change may concern.
        lanes: By (role, claims).
        counters: Totals.
        judging: What is asked and what is told.
        large: Transactions with many rows.
    """

    def __init__(self, parts: DispatcherParts) -> None:
        """Start without any lane."""
        self.index: SubscriptionIndex[BindingGroup] = SubscriptionIndex()
        self.lanes: dict[Audience, Lane] = {}
        self.counters = parts.counters
        self.judging = Judging(parts.rules)
        self._parts = parts
        self._leave_events = parts.rules.leave_events is LeaveEvents.DELETE
        self._last_dispatched = ZERO_LSN
        self._awaiting_dispatch: asyncio.Future[None] | None = None
        self._rebuilt_at = ZERO_LSN
        self._history = 0
        self._first_position: StreamPosition | None = None
        self.large = LargeTransactions(self._needed_from, parts.clock)
        self._places = CatchUpPlaces()
        self._reading = RingReading(parts.ring, self, parts.clock, leave_events=self._leave_events)

    def lane(self, role: str, claims_json: str, judged: frozenset[FilterTerm]) -> Lane:
        """Return the lane of an audience, made when it is new.

        Args:
            role: Database role.
            claims_json: Its claims.
            judged: The filter terms that PostgreSQL judges. They may take it long, and all
                anonymous clients have the same claims: who filters so waits for nobody but himself.
        """
        key = (role, claims_json, judged)
        found = self.lanes.get(key)
        if found is None:
            found = self.lanes[key] = Lane(role, claims_json, self, judged=judged)
        return found

    def drop_lane(self, lane: Lane) -> None:
        """Forget a lane that has no groups left."""
        if not lane.groups:
            self.lanes.pop(lane.audience, None)

    def waiting_changes(self) -> int:
        """Return how many changes wait in all lanes."""
        return sum(lane.waiting_changes for lane in self.lanes.values())

    def last_dispatched(self) -> Lsn:
        """Return the position up to which every transaction was dispatched."""
        return self._last_dispatched

    def pass_to(self, progress: Lsn) -> None:
        """Learn that every transaction that commits below a position was dispatched."""
        if progress > self._last_dispatched:
            self._dispatched_up_to(Lsn(progress - 1))

    def _dispatched_up_to(self, lsn: Lsn) -> None:
        self._last_dispatched = lsn
        awaiting, self._awaiting_dispatch = self._awaiting_dispatch, None
        if awaiting is not None:
            awaiting.set_result(None)

    async def reach(self, lsn: Lsn) -> None:
        """Wait until everything that commits up to a position was dispatched.

        Another history ends it, in which the position means nothing.

        Raises:
            UnavailableError: If the stream does not get there in time.
        """
        history = self._history
        await self._parts.progress.wait(Lsn(lsn + 1), limits.RESUME_WAIT_S)
        while self._last_dispatched < lsn and history == self._history:
            if self._awaiting_dispatch is None:
                self._awaiting_dispatch = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._awaiting_dispatch,))

    def start(self, floor: Lsn, rebuilt_at: Lsn) -> None:
        """Begin with the first stream of this process.

        Args:
            floor: Everything that commits up to here was dispatched before, or is gone.
            rebuilt_at: What commits below was committed before this process could be asked.
        """
        self._rebuilt_at = rebuilt_at
        self._dispatched_up_to(floor)

    def restart(self, floor: Lsn) -> None:
        """Begin with another history: no position of the old one means anything any more.

        Args:
            floor: What commits up to here is not part of it.
        """
        self._rebuilt_at = ZERO_LSN
        self._history += 1
        self._dispatched_up_to(floor)
        self.large.restart()
        self._reading.restart()
        for lane in self.lanes.values():
            lane.restart()

    def finished_place(self, lane: Lane | None) -> Place:
        """Return the place up to which a lane has given its live channels everything."""
        if lane is None:
            return Place(self._last_dispatched, END_OF_TRANSACTION)
        end = finished_up_to(lane, self._last_dispatched)
        return lane.amid or Place(end, END_OF_TRANSACTION)

    # --- beginning ------------------------------------------------------------------------------

    def begin(
        self,
        lane: Lane,
        channel: SubscribedChannel,
        position: StreamPosition,
        owed: Sequence[Transaction],
    ) -> None:
        """Put a new channel at its place, without an await since it was filed under its lane.

        Args:
            lane: Its lane.
            channel: The channel.
            position: Where it begins.
            owed: What the position's snapshot does not see of the past, in commit order. If any of
                it was dispatched, the channel begins by reading from there.
        """
        channel.owed = position
        if self._first_position is None:
            self._first_position = position
        channel.catch_up = partial(self.start_catch_up, lane, channel)
        if owed and owed[0].commit_lsn <= self._last_dispatched:
            channel.lag = Place(Lsn(owed[0].commit_lsn - 1), END_OF_TRANSACTION)
            # What waits in the lane was not matched against this channel's bindings.
            channel.passed_over = self._last_dispatched

    def resume(self, lane: Lane, channel: SubscribedChannel, place: Place) -> None:
        """Have a new channel begin where its client was; it reads from the ring what it missed."""
        channel.owed = Continuation(Lsn(place.read_behind() + 1))
        channel.lag = place
        channel.passed_over = self._passed_over()
        channel.catch_up = partial(self.start_catch_up, lane, channel)

    def _passed_over(self) -> Lsn:
        """Return up to where lanes know nothing of a channel that begins now.

        What only fills the ring is given to no lane: until that has ended it is read from there.
        """
        return max(self._last_dispatched, Lsn(max(0, self._rebuilt_at - 1)))

    def succeed(
        self,
        lane: Lane,
        channel: SubscribedChannel,
        old_lane: Lane | None,
        before: SubscribedChannel,
    ) -> None:
        """Have a channel continue where another one ends.

        Until it starts it takes nothing; then it reads from the ring what the other one has not
        been given.
        """
        channel.owed = before.owed
        channel.lag = Place(self._last_dispatched, END_OF_TRANSACTION)
        channel.passed_over = self._passed_over()
        channel.catch_up = partial(self.start_catch_up, lane, channel)

        def take_over() -> None:
            channel.lag = before.lag or self.finished_place(old_lane)
            begin_lsn = Lsn(channel.lag.read_behind() + 1)
            if channel.owed is None or channel.owed.insert_lsn <= begin_lsn:
                # Its lane may not be as far: what it still has is not for this channel, not even
                # when that is told `resync` and therefore lags no more.
                channel.owed = Continuation(begin_lsn)
            self.start_catch_up(lane, channel)

        channel.take_over = take_over

    # --- dispatching ----------------------------------------------------------------------------

    def is_concerned(self, transaction: Transaction) -> bool:
        """Tell whether anybody subscribed to a table of which a transaction changes rows."""
        has_table = self.index.has_table
        for relation in transaction.relations:  # noqa: SIM110 - a generator costs thrice as much
            if has_table(relation.oid):
                return True
        return False

    def keep(self, rows: OversizeTransaction) -> None:
        """Keep the rows of a transaction that is dispatched next, for whoever reads them."""
        self.large.keep(rows)

    def dispatch(self, transaction: Transaction) -> None:
        """Match a transaction and give each lane its part; one with many rows each lane reads."""
        if self.is_concerned(transaction) and not self._is_old(transaction):
            work = self._leave_to_lanes if is_large(transaction) else self._dispatch_rows
            self._parts.supervisor.call(
                work, transaction, name="dispatch", on_failure=self._not_dispatched
            )
        for relation in transaction.truncated:
            self.resync_table(relation.oid, "truncated", transaction)
        self._dispatched_up_to(transaction.commit_lsn)

    def _is_old(self, transaction: Transaction) -> bool:
        """Tell whether a transaction only fills the ring: it was visible to all who subscribed.

        After a restart the last stretch of the stream comes again. Who resumes reads it from the
        ring, and whoever is new does not want it.
        """
        if transaction.commit_lsn >= self._rebuilt_at:
            return False
        first = self._first_position
        return first is None or first.snapshot.sees(transaction.xid)

    def _leave_to_lanes(self, transaction: Transaction) -> None:
        self.counters.row_changes += transaction.row_count
        audiences = dict.fromkeys(
            group.audience
            for relation in transaction.relations
            for group in self.index.groups(relation.oid)
        )
        for audience in audiences:
            self.lanes[audience].leave_to_ring(transaction.commit_lsn)

    def _not_dispatched(self, transaction: Transaction) -> None:
        self.resync_tables(transaction, "internal_error")

    def _dispatch_rows(self, transaction: Transaction) -> None:
        changes = transaction.decode(self.key_places(transaction))
        self.counters.row_changes += len(changes)
        dispatched = DispatchedTransaction(transaction)
        items: dict[Audience, LaneItem] = {}
        for change in changes:
            for group in self.index.candidates(change):
                match = self._match(group, change)
                if match is None:
                    continue
                item = items.get(group.audience)
                if item is None:
                    item = items[group.audience] = LaneItem(dispatched, [])
                item.matches.append(match)
        for audience, item in items.items():
            lane = self.lanes[audience]
            self._parts.supervisor.call(lane.push, item, name="lane", on_failure=lane.fail)

    def _match(self, group: "BindingGroup", change: RowChange) -> "Match | None":
        """Match; a bug in it ends the channels of that group only."""
        try:
            return group.match(change, leave_events=self._leave_events)
        except Exception as error:  # noqa: BLE001 - one group's bug must not stop the others
            failed = partial(close_failed, tuple(group.channels))
            self._parts.supervisor.note(error, name="match", on_failure=failed)
            return None

    def key_places(self, transaction: Transaction) -> dict[int, tuple[int, ...] | None]:
        """Adopt the relations of a transaction; who subscribed to one that disagrees is told."""
        places, disagreeing = self.adopted(transaction)
        for oid in disagreeing:
            self.resync_table(oid, "relation_disagrees", transaction)
        return places

    def adopted(
        self, transaction: Transaction
    ) -> tuple[dict[int, tuple[int, ...] | None], list[int]]:
        """Return where the keys stand, and the tables whose relation is not the catalog's."""
        places: dict[int, tuple[int, ...] | None] = {}
        disagreeing: list[int] = []
        for relation in transaction.relations:
            entry = self._parts.registry.entry(relation.oid)
            if entry is None or not self.index.has_table(relation.oid):
                continue
            if entry.adopt(relation) and entry.layout is not None:
                places[relation.oid] = entry.layout.key_places
            else:
                places.pop(relation.oid, None)
                disagreeing.append(relation.oid)
        return places, disagreeing

    def resync_table(self, table_oid: int, reason: str, transaction: Transaction) -> None:
        """Tell every channel of a table, behind whatever its lane has to deliver before.

        A lane that fell behind meets the transaction again in the ring and tells it then.
        """
        for group in self.index.groups(table_oid):
            lane = self.lanes[group.audience]
            if lane.behind is None:
                tell_resync(lane, group, reason, transaction, None)

    def resync_tables(self, transaction: Transaction, reason: str) -> None:
        """Tell every channel of every table of a transaction."""
        for relation in transaction.relations:
            self.resync_table(relation.oid, reason, transaction)

    def resync_all(self, reason: str) -> None:
        """Tell every channel."""
        channels = {
            channel
            for lane in self.lanes.values()
            for group in lane.groups.values()
            for channel in group.channels
        }
        for channel in channels:
            channel.resync(reason)

    def channels(self) -> Iterator[SubscribedChannel]:
        """Yield every channel; one with several groups comes more than once."""
        for lane in self.lanes.values():
            for group in lane.groups.values():
                yield from group.channels

    def _needed_from(self) -> Lsn | None:
        """Return the lowest position behind which somebody reads the ring."""
        lags = (channel.lag.commit_lsn for channel in self.channels() if channel.lag is not None)
        within = (Lsn(commit_lsn - 1) for commit_lsn in lags)
        behind = (lane.behind for lane in self.lanes.values() if lane.behind is not None)
        return min(chain(within, behind), default=None)

    def note_commit(self, commit_time_us: int) -> None:
        """Note whose changes are queued for clients from now on; 0 for nobody's."""
        self._parts.metrics.commit_to_write.current_us = commit_time_us

    # --- lane services --------------------------------------------------------------------------

    @property
    def must_look(self) -> bool:
        """Whether rights must be compared even where nothing is judged."""
        return self._parts.judge.must_look

    def spawn_lane(self, lane: Lane) -> None:
        """Run a lane's work in a task; a bug in it ends that lane's channels only."""
        self._parts.supervisor.spawn(lane.run(), name="lane", on_failure=lane.fail)

    def start_catch_up(self, lane: Lane, channel: SubscribedChannel) -> None:
        """Have a lagging channel read from the ring at its own pace, once it has started."""
        if channel.is_held or channel.is_catching_up:
            return
        self.counters.catch_ups += 1

        failed = partial(close_failed, (channel,))

        async def work() -> None:
            await catch_up(self._reading, lane, channel, self._places)
            self.large.release()

        self._parts.supervisor.spawn(work(), name="catch_up", on_failure=failed)

    async def refill(self, lane: Lane) -> None:
        """Give an overflown lane what it missed; see `RingReading.refill`."""
        await self._reading.refill(lane)

    async def judge(self, lane: Lane, question: Question, items: Sequence[LaneItem]) -> Judgement:
        """Judge; see `AudienceJudge.judge`."""
        return await self._parts.judge.judge(lane, question, items)

    def rights_changed(
        self,
        judgement: Judgement,
        transaction: Transaction,
        table_oids: Collection[int],
        proven: ProvenRights | None,
    ) -> bool:
        """Tell whether rights may have changed; see `AudienceJudge.rights_changed`."""
        return self._parts.judge.rights_changed(judgement, transaction, table_oids, proven)

    def rights_changed_by(self, transaction: Transaction, judgement: Judgement | None) -> bool:
        """Tell whether a transaction changed rights; see `AudienceJudge.rights_changed_by`."""
        return self._parts.judge.rights_changed_by(transaction, judgement)
