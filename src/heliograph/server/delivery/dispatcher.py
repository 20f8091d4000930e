"""From a transaction to the lanes it concerns; catch-up and refill for all lanes."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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
from heliograph.server.delivery.catch_up import catch_up
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
        supervisor: Owns the lanes' tasks.
        clock: For durations.
        rules: ``delete_visibility`` and ``leave_events``.
        metrics: For the histograms.
        counters: Totals to add to.
    """

    ring: Ring
    judge: AudienceJudge
    registry: TableRegistry
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
        self.large = LargeTransactions(self, parts.clock)
        self._reading = RingReading(parts.ring, self, leave_events=self._leave_events)

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
        """Return the commit position of the last dispatched transaction."""
        return self._last_dispatched

    def restart(self) -> None:
        """Begin with another history: no position of the old one means anything any more."""
        self._last_dispatched = ZERO_LSN
        self.large.restart()
        for lane in self.lanes.values():
            lane.restart()

    def finished_place(self, lane: Lane | None, channel: SubscribedChannel) -> Place:
        """Return the place up to which a lane has given a live channel everything."""
        unfinished = None if lane is None else lane.first_unfinished(channel)
        place = self.large.place
        if place is not None and unfinished in {None, place.commit_lsn}:
            return place
        end = self._last_dispatched if unfinished is None else Lsn(unfinished - 1)
        if lane is not None and lane.behind is not None:
            end = min(end, lane.behind)
        return Place(end, END_OF_TRANSACTION)

    # --- dispatching ----------------------------------------------------------------------------

    def is_concerned(self, transaction: Transaction) -> bool:
        """Tell whether anybody subscribed to a table of which a transaction changes rows."""
        has_table = self.index.has_table
        for relation in transaction.relations:  # noqa: SIM110 - a generator costs thrice as much
            if has_table(relation.oid):
                return True
        return False

    def dispatch(self, transaction: Transaction) -> None:
        """Match a transaction and give each lane its part.

        The rows of a large one were dispatched before (`dispatch_large`).
        """
        if self.is_concerned(transaction) and not is_large(transaction):
            self._parts.supervisor.call(
                self._dispatch_rows, transaction, name="dispatch", on_failure=self._not_dispatched
            )
        for relation in transaction.truncated:
            self.resync_table(relation.oid, "truncated", transaction)
        self._last_dispatched = transaction.commit_lsn
        if self.large.place is not None:
            self.large.finish()

    def _dispatch_rows(self, transaction: Transaction) -> None:
        changes = transaction.decode(self.key_places(transaction))
        self.dispatch_changes(transaction, changes)

    def _not_dispatched(self, transaction: Transaction) -> None:
        self.resync_tables(transaction, "internal_error")

    async def dispatch_large(self, large: OversizeTransaction) -> None:
        """Give each lane its part of a transaction with many rows, segment by segment."""
        try:
            await self.large.dispatch(large)
        except Exception as error:  # noqa: BLE001 - as in `dispatch`: other transactions go on
            failed = partial(self._not_dispatched, large.mark)
            self._parts.supervisor.note(error, name="dispatch", on_failure=failed)

    def dispatch_segment(self, transaction: Transaction, changes: Sequence[RowChange]) -> None:
        """Give each lane its part of a segment.

        A table may have been read anew since the segment before. If it differs from the rows now,
        its subscribers were told when that was found.
        """
        places, _ = self.adopted(transaction)
        known = [change for change in changes if change.relation.oid in places]
        self.dispatch_changes(transaction, known)

    def dispatch_changes(self, transaction: Transaction, changes: Sequence[RowChange]) -> None:
        """Give each lane its part of some changes of one transaction."""
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

    def concerned_channels(self, transaction: Transaction) -> Iterator[SubscribedChannel]:
        """Yield the channels of the tables of a transaction."""
        for relation in transaction.relations:
            for group in self.index.groups(relation.oid):
                yield from group.channels

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no lane has work left, or the time is over."""
        drained = [self._drained(lane) for lane in self.lanes.values() if not lane.is_idle()]
        if drained:
            await asyncio.wait(drained, timeout=max(0.0, timeout_s))

    def leave_behind(self, transaction: Transaction) -> None:
        """Tell lanes that still have work ``resync`` instead of the rest of a transaction."""
        busy = [lane for lane in self.lanes.values() if not lane.is_idle() and lane.behind is None]
        oids = {relation.oid for relation in transaction.relations} if busy else set[int]()
        for lane in busy:
            groups = [g for g in lane.groups.values() if g.entry.description.oid in oids]
            if groups and lane.skip(transaction.commit_lsn):
                for group in groups:
                    tell_resync(lane, group, "transaction_too_slow", transaction, None)

    def _drained(self, lane: Lane) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done() -> None:
            if not future.done():
                future.set_result(None)

        lane.on_drained(done)
        return future

    def observe_written(self, commit_time_us: int) -> None:
        """Note that changes of a transaction were queued for clients."""
        lag_s = self._parts.clock.unix_s() - commit_time_us / 1e6
        self._parts.metrics.commit_to_write_seconds.observe(max(0.0, lag_s))

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
            await catch_up(self._reading, lane, channel)
            self.large.release()

        self._parts.supervisor.spawn(work(), name="catch_up", on_failure=failed)

    def refill(self, lane: Lane) -> bool:
        """Push what an overflown lane missed; see `RingReading.refill`."""
        return self._reading.refill(lane)

    def item_for(
        self, lane: Lane, transaction: Transaction, channel: SubscribedChannel
    ) -> LaneItem | None:
        """Match one transaction against one channel; see `RingReading.item_for`."""
        return self._reading.item_for(lane, transaction, channel)

    async def judge(self, lane: Lane, question: Question, items: Sequence[LaneItem]) -> Judgement:
        """Judge; see `AudienceJudge.judge`."""
        return await self._parts.judge.judge(lane, question, items)

    def rights_changed(
        self, judgement: Judgement, transaction: Transaction, table_oids: Collection[int]
    ) -> bool:
        """Tell whether rights may have changed; see `AudienceJudge.rights_changed`."""
        return self._parts.judge.rights_changed(judgement, transaction, table_oids)
