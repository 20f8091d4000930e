"""Puts the parts of delivery together and runs their tasks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.changelog.trail import SlotTrail, TrailBounds
from heliograph.ports.change_source import ChangeSource
from heliograph.ports.clock import Clock
from heliograph.ports.continuity_store import ContinuityStore
from heliograph.ports.reads_store import ReadsStore
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.catalog import Catalog
from heliograph.postgres.dependency_publication import (
    DEPENDENCY_PUBLICATION,
    FollowResult,
    follow_dependency,
)
from heliograph.postgres.judge import Judge
from heliograph.server.delivery.audience_judge import AudienceJudge, AudienceJudgeParts
from heliograph.server.delivery.continuity import Continuity
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.dispatcher import Dispatcher, DispatcherParts
from heliograph.server.delivery.fingerprints import RightsFingerprints
from heliograph.server.delivery.inbox import ChangeInbox, InboxParts
from heliograph.server.delivery.judging import VisibilityRules
from heliograph.server.delivery.late_writers import LateWriters
from heliograph.server.delivery.marks import MarkParts, PositionMarks
from heliograph.server.delivery.positions import PositionService, StreamPosition, Unsettled
from heliograph.server.delivery.preparation import Preparation, PreparationParts
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.resuming import Resuming, ResumingParts
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_messages import RightsMessages
from heliograph.server.delivery.rights_teller import RightsTeller
from heliograph.server.delivery.rights_watch import RightsWatch
from heliograph.server.delivery.serving import ServingRules
from heliograph.server.delivery.subscriptions import ChangeSubscriptionService, SubscriptionParts
from heliograph.server.delivery.table_registry import TableRegistry
from heliograph.server.metrics import Metrics
from heliograph.server.supervision import Supervisor


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """What delivery is made from.

    Attributes:
        admin: The server's own connections, open.
        judge: The exact path, open.
        source: Reads the slot; run by the caller with `Delivery.inbox` as its sink.
        ring: The change log, empty.
        clock: For ages and durations.
        publication: What clients may subscribe to.
        message_secret: What genuine messages of the event triggers begin with; None without them.
        visibility: ``delete_visibility`` and ``leave_events``.
        serving: Which tables are served.
        metrics: For the histograms.
        store: Outlives the process, so that positions do.
        reads: The same for what judging was found to read.
    """

    admin: AdminDatabase
    judge: Judge
    source: ChangeSource
    ring: Ring
    clock: Clock
    publication: str
    message_secret: bytes | None
    visibility: VisibilityRules
    serving: ServingRules
    metrics: Metrics
    store: ContinuityStore
    reads: ReadsStore


@dataclass(frozen=True, slots=True)
class Delivery:
    """Running delivery.

    Attributes:
        inbox: The sink for the reader.
        dispatcher: Lanes, index and counters.
        subscriptions: What channels ask.
        progress: How far the stream was received.
        dependencies: What policies read.
        rights_messages: Counts forged messages.
        supervisor: Counts failed tasks.
        marks: Tells positions; to be flushed before connections are.
        late_writers: For whose end positions wait.
    """

    inbox: ChangeInbox
    dispatcher: Dispatcher
    subscriptions: ChangeSubscriptionService
    progress: StreamProgress
    dependencies: Dependencies
    rights_messages: RightsMessages
    supervisor: Supervisor
    marks: PositionMarks
    late_writers: LateWriters


@asynccontextmanager
async def run_delivery(options: DeliveryOptions) -> AsyncGenerator[Delivery]:
    """Run delivery until the block ends; then every task of it is cancelled.

    Raises:
        UnavailableError: If the catalog can not be read at the start.
    """
    foundation = await _found(options)
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        delivery, positions, preparation = _assemble(options, foundation, supervisor)
        works = (
            delivery.inbox.run(),
            positions.run(settle_interval_s=limits.SETTLE_INTERVAL_S),
            preparation.watch(),
            foundation.dependencies.retry(),
            foundation.late_writers.run(),
            delivery.marks.run(),
            _keep_continuity(foundation.continuity),
            _look_after(options.ring, delivery.dispatcher, options.clock),
        )
        tasks = [group.create_task(work) for work in works]
        try:
            yield delivery
        finally:
            for task in (*tasks, *supervisor.tasks):
                task.cancel()


async def _look_after(ring: Ring, dispatcher: Dispatcher, clock: Clock) -> None:
    """Keep the ring to its age while nothing is appended, and log ``resync``, until cancelled."""
    while True:
        await asyncio.sleep(limits.RING_AGE_CHECK_INTERVAL_S)
        ring.evict(clock.monotonic_s())
        dispatcher.large.release()
        dispatcher.counters.log_resyncs()


async def _keep_continuity(continuity: Continuity) -> None:
    """Have what was received outlive a crash of the machine, too, until cancelled."""
    while True:
        await asyncio.sleep(limits.CONTINUITY_SYNC_INTERVAL_S)
        await asyncio.to_thread(continuity.sync)


@dataclass(frozen=True, slots=True)
class _Foundation:
    """What everything above stands on."""

    rights_log: RightsLog
    rights: RightsWatch
    dependencies: Dependencies
    unsettled: Unsettled
    progress: StreamProgress
    registry: TableRegistry
    continuity: Continuity
    late_writers: LateWriters


async def _found(options: DeliveryOptions) -> _Foundation:
    admin = options.admin

    async def follow(table_oid: int) -> FollowResult:
        async with admin.connection() as connection:
            return await follow_dependency(connection, table_oid)

    rights_log = RightsLog()
    rights = RightsWatch(admin.rights_state, reads_definitions=options.message_secret is None)
    dependencies = Dependencies(admin, rights_log, rights, follow, options.reads)
    await dependencies.start((options.publication, DEPENDENCY_PUBLICATION))
    progress = StreamProgress(request=options.source.request_progress, nudge=admin.nudge)
    late_writers = LateWriters(admin)
    registry = TableRegistry(admin, Catalog(options.publication), rights, late_writers)
    return _Foundation(
        rights_log,
        rights,
        dependencies,
        Unsettled(),
        progress,
        registry,
        Continuity(options.store),
        late_writers,
    )


def _assemble(
    options: DeliveryOptions, foundation: _Foundation, supervisor: Supervisor
) -> tuple[Delivery, PositionService, Preparation]:
    async def take_position() -> StreamPosition:
        return StreamPosition(*await options.admin.take_position())

    positions = PositionService(take=take_position, unsettled=foundation.unsettled)
    dispatcher = _dispatcher(options, foundation, supervisor)
    preparation = _preparation(options, foundation, dispatcher)
    marks = _marks(options, foundation, dispatcher, supervisor, positions)
    positions.on_settled = marks.settled
    foundation.late_writers.on_ended = preparation.tell_publication_changed
    teller = RightsTeller(dispatcher, foundation.dependencies, marks)
    foundation.rights.on_changed = teller.parts_changed
    foundation.dependencies.on_new_reads = teller.tables_changed
    rights_messages = RightsMessages(options.message_secret)
    inbox = ChangeInbox(
        InboxParts(
            ring=options.ring,
            trail=_trail(options),
            continuity=foundation.continuity,
            dispatcher=dispatcher,
            preparation=preparation,
            progress=foundation.progress,
            unsettled=foundation.unsettled,
            rights_log=foundation.rights_log,
            rights=foundation.rights,
            rights_messages=rights_messages,
            rights_teller=teller,
            clock=options.clock,
        )
    )
    subscriptions = ChangeSubscriptionService(
        SubscriptionParts(
            registry=foundation.registry,
            dispatcher=dispatcher,
            positions=positions,
            unsettled=foundation.unsettled,
            dependencies=foundation.dependencies,
            judge=options.judge,
            rules=options.serving,
            delete_visibility=options.visibility.delete_visibility,
            resuming=_resuming(options, foundation, marks),
            clock=options.clock,
        )
    )
    preparation.wildcards = subscriptions
    delivery = Delivery(
        inbox,
        dispatcher,
        subscriptions,
        foundation.progress,
        foundation.dependencies,
        rights_messages,
        supervisor,
        marks,
        foundation.late_writers,
    )
    return delivery, positions, preparation


def _preparation(
    options: DeliveryOptions, foundation: _Foundation, dispatcher: Dispatcher
) -> Preparation:
    return Preparation(
        PreparationParts(
            admin=options.admin,
            registry=foundation.registry,
            dispatcher=dispatcher,
            dependencies=foundation.dependencies,
            rights_log=foundation.rights_log,
            rights=foundation.rights,
            progress=foundation.progress,
            rules=options.serving,
            late_writers=foundation.late_writers,
        )
    )


def _marks(
    options: DeliveryOptions,
    foundation: _Foundation,
    dispatcher: Dispatcher,
    supervisor: Supervisor,
    positions: PositionService,
) -> PositionMarks:
    return PositionMarks(
        MarkParts(
            ring=options.ring,
            continuity=foundation.continuity,
            progress=foundation.progress,
            unsettled=foundation.unsettled,
            settle=positions.settle,
            places=dispatcher,
            clock=options.clock,
            counters=dispatcher.counters,
            supervisor=supervisor,
        )
    )


def _trail(options: DeliveryOptions) -> SlotTrail:
    """Return what the slot keeps for the ring: not longer than the ring would."""
    return SlotTrail(TrailBounds(age_s_max=options.ring.bounds.age_s_max))


def _resuming(options: DeliveryOptions, foundation: _Foundation, marks: PositionMarks) -> Resuming:
    return Resuming(
        ResumingParts(
            ring=options.ring,
            continuity=foundation.continuity,
            marks=marks,
            fingerprints=RightsFingerprints(
                foundation.rights, foundation.dependencies, foundation.registry
            ),
            rights_log=foundation.rights_log,
            late_writers=foundation.late_writers,
        )
    )


def _dispatcher(
    options: DeliveryOptions, foundation: _Foundation, supervisor: Supervisor
) -> Dispatcher:
    counters = DeliveryCounters()
    judge = AudienceJudge(
        AudienceJudgeParts(
            judge=options.judge,
            registry=foundation.registry,
            dependencies=foundation.dependencies,
            rights_log=foundation.rights_log,
            rights=foundation.rights,
            unsettled=foundation.unsettled,
            progress=foundation.progress,
            clock=options.clock,
            metrics=options.metrics,
            counters=counters,
        )
    )
    return Dispatcher(
        DispatcherParts(
            ring=options.ring,
            judge=judge,
            registry=foundation.registry,
            progress=foundation.progress,
            supervisor=supervisor,
            clock=options.clock,
            rules=options.visibility,
            metrics=options.metrics,
            counters=counters,
        )
    )
