"""Puts the parts of delivery together and runs their tasks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.ports.change_source import ChangeSource
from heliograph.ports.clock import Clock
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.catalog import Catalog
from heliograph.postgres.dependency_publication import (
    DEPENDENCY_PUBLICATION,
    FollowResult,
    follow_dependency,
)
from heliograph.postgres.judge import Judge
from heliograph.server.delivery.audience_judge import AudienceJudge, AudienceJudgeParts
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.dispatcher import Dispatcher, DispatcherParts
from heliograph.server.delivery.inbox import ChangeInbox, InboxParts
from heliograph.server.delivery.judging import VisibilityRules
from heliograph.server.delivery.positions import PositionService, StreamPosition, Unsettled
from heliograph.server.delivery.preparation import Preparation, PreparationParts
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_messages import RightsMessages
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
    """

    inbox: ChangeInbox
    dispatcher: Dispatcher
    subscriptions: ChangeSubscriptionService
    progress: StreamProgress
    dependencies: Dependencies
    rights_messages: RightsMessages
    supervisor: Supervisor


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
            _look_after(options.ring, delivery.dispatcher.counters, options.clock),
        )
        tasks = [group.create_task(work) for work in works]
        try:
            yield delivery
        finally:
            for task in (*tasks, *supervisor.tasks):
                task.cancel()


async def _look_after(ring: Ring, counters: DeliveryCounters, clock: Clock) -> None:
    """Keep the ring to its age while nothing is appended, and log ``resync``, until cancelled."""
    while True:
        await asyncio.sleep(limits.RING_AGE_CHECK_INTERVAL_S)
        ring.evict(clock.monotonic_s())
        counters.log_resyncs()


@dataclass(frozen=True, slots=True)
class _Foundation:
    """What everything above stands on."""

    rights_log: RightsLog
    rights: RightsWatch
    dependencies: Dependencies
    unsettled: Unsettled
    progress: StreamProgress
    registry: TableRegistry


async def _found(options: DeliveryOptions) -> _Foundation:
    admin = options.admin

    async def follow(table_oid: int) -> FollowResult:
        async with admin.connection() as connection:
            return await follow_dependency(connection, table_oid)

    rights_log = RightsLog()
    rights = RightsWatch(admin.rights_state, reads_definitions=options.message_secret is None)
    dependencies = Dependencies(admin, rights_log, rights, follow)
    await dependencies.start((options.publication, DEPENDENCY_PUBLICATION))
    progress = StreamProgress(request=options.source.request_progress, nudge=admin.nudge)
    registry = TableRegistry(admin, Catalog(options.publication), rights)
    return _Foundation(rights_log, rights, dependencies, Unsettled(), progress, registry)


def _assemble(
    options: DeliveryOptions, foundation: _Foundation, supervisor: Supervisor
) -> tuple[Delivery, PositionService, Preparation]:
    async def take_position() -> StreamPosition:
        return StreamPosition(*await options.admin.take_position())

    positions = PositionService(take=take_position, unsettled=foundation.unsettled)
    dispatcher = _dispatcher(options, foundation, supervisor)
    preparation = Preparation(
        PreparationParts(
            admin=options.admin,
            registry=foundation.registry,
            dispatcher=dispatcher,
            dependencies=foundation.dependencies,
            rights_log=foundation.rights_log,
            rights=foundation.rights,
            progress=foundation.progress,
            rules=options.serving,
        )
    )
    rights_messages = RightsMessages(options.message_secret)
    inbox = ChangeInbox(
        InboxParts(
            ring=options.ring,
            dispatcher=dispatcher,
            preparation=preparation,
            progress=foundation.progress,
            unsettled=foundation.unsettled,
            rights_log=foundation.rights_log,
            rights=foundation.rights,
            rights_messages=rights_messages,
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
    )
    return delivery, positions, preparation


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
            supervisor=supervisor,
            clock=options.clock,
            rules=options.visibility,
            metrics=options.metrics,
            counters=counters,
        )
    )
