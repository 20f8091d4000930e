"""The composition root: builds a whole server from settings and runs it until asked to stop."""

import asyncio
import contextlib
import random  # noqa: TID251 - the generators for jitter are made here
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from heliograph.cli.database_watch import DatabaseWatch
from heliograph.config import Settings
from heliograph.core.changelog.ring import Ring, RingBounds
from heliograph.core.channels.server_connection import ConnectionLimits
from heliograph.core.replication.lsn import ZERO_LSN
from heliograph.errors import ConfigurationError, StorageError
from heliograph.ports.change_source import ChangeSource, SourceState
from heliograph.ports.continuity_store import ContinuityStore
from heliograph.ports.reads_store import ReadsStore
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.bootstrap import PreparedDatabase, prepare_database
from heliograph.postgres.dependency_publication import DEPENDENCY_PUBLICATION
from heliograph.postgres.judge import Judge
from heliograph.postgres.polling_source import PollingSource
from heliograph.postgres.reader_state import ReaderOptions
from heliograph.postgres.replication_source import StreamingSource
from heliograph.postgres.slot_limit import SlotLimit
from heliograph.server.app import ServerParts
from heliograph.server.authentication import make_keys
from heliograph.server.continuity_file import ContinuityFile, ContinuityInMemory
from heliograph.server.delivery.assembly import Delivery, DeliveryOptions, run_delivery
from heliograph.server.delivery.delivery_metrics import register_delivery
from heliograph.server.delivery.judging import VisibilityRules
from heliograph.server.delivery.serving import ServingRules
from heliograph.server.garbage_collection import calm_garbage_collector
from heliograph.server.health import ReadinessPart
from heliograph.server.metrics import Metrics
from heliograph.server.open_files import fit_connections
from heliograph.server.origins import OriginPolicy
from heliograph.server.outbound import OutboundLimits
from heliograph.server.reads_file import ReadsFile, ReadsInMemory
from heliograph.server.system_clock import SystemClock
from heliograph.server.uvicorn_server import BoundAddress, ListenSettings, StopRequest, serve

_log = structlog.get_logger("heliograph.server")


#: Where the server keeps how far it has read, unless the settings say: from where it is started.
STATE_FOLDER: Final = Path("heliograph-state")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsOptions:
    """How a server's parts are made, beyond its settings.

    Attributes:
        may_migrate: Whether pending migrations are run at the start.
        allows_local_origins: Whether pages of this machine may connect.
        spill_folder: Where transactions too large for memory wait; None: the temporary folder.
        state_dir: Where is kept how far the stream was read, unless the settings say.
    """

    may_migrate: bool
    allows_local_origins: bool
    spill_folder: Path | None = None
    state_dir: Path = STATE_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server is run, beyond its settings.

    Attributes:
        listen: Where.
        parts: How its parts are made.
        on_ready: Called once, when clients may connect and changes flow.
        stop: Asks the server to stop.
    """

    listen: ListenSettings
    parts: PartsOptions
    on_ready: Callable[[BoundAddress], None]
    stop: StopRequest


async def run_server(settings: Settings, options: ServerOptions) -> int | None:
    """Run a server until it is asked to stop; drains before it returns.

    Returns:
        The signal that asked, or None.

    Raises:
        ConfigurationError: If settings or database must be changed first.
        UnavailableError: If the database does not answer at the start.
    """
    async with running_parts(settings, options.parts) as parts:
        with calm_garbage_collector(parts.clock, parts.metrics.gc_pause_seconds.observe):
            return await serve(parts, options.listen, on_ready=options.on_ready, stop=options.stop)


@contextlib.asynccontextmanager
async def running_parts(settings: Settings, options: PartsOptions) -> AsyncGenerator[ServerParts]:
    """Connect to the database, read it, and lend what a server or an application is made of.

    Where the reader ends by an error that no repetition can help, the block is cancelled and the
    error raised.

    Raises:
        ConfigurationError: If settings or database must be changed first.
        UnavailableError: If the database does not answer at the start.
    """
    prepared = await prepare_database(settings, may_migrate=options.may_migrate)
    clock = SystemClock()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        admin = AdminDatabase(settings.url_for_administration().reveal())
        await admin.open()
        stack.push_async_callback(admin.close)
        judge = _make_judge(settings, prepared)
        await judge.open()
        stack.push_async_callback(judge.close)
        source = _make_source(settings, options, prepared, clock)
        stores = _open_stores(settings, options)
        foundation = _Foundation(admin, judge, source, clock, metrics, *stores)
        delivery_options = _delivery_options(settings, prepared, foundation)
        delivery = await stack.enter_async_context(run_delivery(delivery_options))
        register_delivery(metrics, delivery, ring=delivery_options.ring, clock=clock)
        watch = _watch_database(settings, foundation)
        watch.register(metrics)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(source.run(delivery.inbox), name="reader")
            watching = group.create_task(watch.run(), name="watch database")
            await _wait_streaming(source, reading)
            yield _server_parts(settings, options, foundation, delivery, _readiness(source, watch))
            reading.cancel()
            watching.cancel()


def _watch_database(settings: Settings, foundation: "_Foundation") -> DatabaseWatch:
    return DatabaseWatch(
        foundation.admin,
        foundation.source,
        slot_name=settings.slot,
        slot_limit=SlotLimit(
            settings.url_for_replication(), settings.slot, settings.bounds.slot_wal_bytes_max
        ),
        clock=foundation.clock,
    )


@dataclass(frozen=True, slots=True)
class _Foundation:
    """What delivery and server both stand on."""

    admin: AdminDatabase
    judge: Judge
    source: ChangeSource
    clock: SystemClock
    metrics: Metrics
    store: ContinuityStore
    reads: ReadsStore


def _delivery_options(
    settings: Settings, prepared: PreparedDatabase, foundation: _Foundation
) -> DeliveryOptions:
    bounds = settings.bounds
    ring_bounds = RingBounds(
        bounds.ring_bytes_max, bounds.ring_transactions_max, bounds.ring_age_s_max
    )
    return DeliveryOptions(
        admin=foundation.admin,
        judge=foundation.judge,
        source=foundation.source,
        ring=Ring(ZERO_LSN, bounds=ring_bounds),
        clock=foundation.clock,
        publication=prepared.publication,
        message_secret=prepared.message_secret,
        visibility=VisibilityRules(settings.delete_visibility, settings.leave_events),
        serving=ServingRules(frozenset(settings.allow_without_rls)),
        metrics=foundation.metrics,
        store=foundation.store,
        reads=foundation.reads,
    )


def _open_stores(settings: Settings, options: PartsOptions) -> tuple[ContinuityStore, ReadsStore]:
    """Return where is kept how far the stream was read, and what judging reads.

    Raises:
        ConfigurationError: If the folder that was asked for can not be written to.
    """
    folder = Path(settings.state_dir or options.state_dir)
    try:
        return ContinuityFile(folder, settings.slot), ReadsFile(folder, settings.slot)
    except StorageError as error:
        if settings.state_dir is not None:
            message = f"HELIOGRAPH_STATE_DIR: {error}"
            raise ConfigurationError(message) from error
        _log.warning(
            "state_not_kept",
            reason=str(error),
            remedy="set HELIOGRAPH_STATE_DIR: without it every client loads anew after a restart",
        )
        return ContinuityInMemory(), ReadsInMemory()


def _server_parts(
    settings: Settings,
    options: PartsOptions,
    foundation: _Foundation,
    delivery: Delivery,
    readiness: tuple[ReadinessPart, ...],
) -> ServerParts:
    return ServerParts(
        subscriptions=delivery.subscriptions,
        authenticator=make_keys(settings, foundation.clock),
        clock=foundation.clock,
        origins=OriginPolicy(
            settings.allowed_origins or (), allows_local=options.allows_local_origins
        ),
        metrics=foundation.metrics,
        readiness=readiness,
        connection_limits=_connection_limits(settings),
        outbound_limits=_outbound_limits(settings),
        connections_max=fit_connections(settings.bounds.connections_max),
        message_bytes_max=settings.bounds.message_bytes_max,
        before_flush=delivery.marks.flush,
    )


def _make_judge(settings: Settings, prepared: PreparedDatabase) -> Judge:
    return Judge(
        prepared.judge_conninfo,
        connections_max=settings.bounds.judgement_connections_max,
        timeout_s=settings.bounds.judgement_timeout_s,
        stand_ins=prepared.stand_ins,
        other_logins=prepared.other_judges,
    )


def _make_source(
    settings: Settings, options: PartsOptions, prepared: PreparedDatabase, clock: SystemClock
) -> ChangeSource:
    reader = ReaderOptions(
        database_url=settings.url_for_replication(),
        slot_name=settings.slot,
        publications=(prepared.publication, DEPENDENCY_PUBLICATION),
        spill_folder=options.spill_folder,
        slot_wal_bytes_max=settings.bounds.slot_wal_bytes_max,
    )
    generator = random.Random()  # noqa: S311 - jitter needs no secrecy
    if prepared.must_poll:
        was_asked_for = settings.reader == "polling"
        why = "HELIOGRAPH_READER asks for it" if was_asked_for else "replication is refused"
        _log.warning("reader_polls", reason=f"{why}; changes arrive more slowly")
        return PollingSource(reader, clock=clock, generator=generator)
    return StreamingSource(reader, clock=clock, generator=generator)


async def _wait_streaming(source: ChangeSource, reading: asyncio.Task[None]) -> None:
    """Wait until the reader's position is fixed: before that nobody can be subscribed."""
    said = ""
    while source.status().state is not SourceState.STREAMING and not reading.done():
        status = source.status()
        if status.reason != said:
            said = status.reason
            _log.info("starting", waiting_for=said)
        await asyncio.sleep(0.01)


def _readiness(source: ChangeSource, watch: DatabaseWatch) -> tuple[ReadinessPart, ...]:
    def reader_problem() -> str | None:
        status = source.status()
        return None if status.state is SourceState.STREAMING else status.reason

    return (
        ReadinessPart("database", watch.problem),
        ReadinessPart("reader", reader_problem),
    )


def _connection_limits(settings: Settings) -> ConnectionLimits:
    bounds = settings.bounds
    return ConnectionLimits(
        channels_max=bounds.channels_per_socket_max,
        joins_per_s=bounds.joins_per_second_max,
        pushes_per_s=bounds.messages_per_second_max,
    )


def _outbound_limits(settings: Settings) -> OutboundLimits:
    bounds = settings.bounds
    return OutboundLimits(
        bytes_high=bounds.outbound_bytes_high,
        bytes_low=bounds.outbound_bytes_low,
        bytes_max=bounds.outbound_bytes_max,
        bytes_total_max=bounds.outbound_bytes_total_max,
        write_deadline_s=bounds.write_deadline_s,
    )
