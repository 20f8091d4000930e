"""The change source over a replication connection: whole transactions, reconnecting by itself.

Three things happen independently on the event loop: the *pump* reads frames and hands transactions
on, with back-pressure from the sink; the *beat*, a timer, sends statuses, also while the pump
waits, and finds out that the link is silent; `request_progress` asks the server for its position.

Order of one start: lock, check, slot, START_REPLICATION, `source_started`, pump.
"""

import asyncio
import random  # noqa: TID251 - only the type: the caller gives the generator
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from heliograph import limits
from heliograph.core.replication.frames import Keepalive
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.stream import StreamEvent
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import ReplicationError
from heliograph.ports.change_source import ChangeSink, SourceIdentity, SourceStatus
from heliograph.ports.clock import Clock
from heliograph.postgres import slot
from heliograph.postgres.reader_state import ReaderOptions, ReaderState
from heliograph.postgres.replication_connection import (
    SLOT_IN_USE,
    SLOT_INVALIDATED,
    ReplicationConnection,
    open_session,
)
from heliograph.postgres.slot_limit import smaller_limit


class StreamingSource:
    """A `ChangeSource` that streams; see the module."""

    def __init__(self, options: ReaderOptions, *, clock: Clock, generator: random.Random) -> None:
        """Wire it; nothing is opened before `run`.

        Args:
            options: What to read.
            clock: For deadlines and the time in statuses.
            generator: For the jitter of reconnects.
        """
        self._options = options
        self._clock = clock
        self._state = ReaderState(options, generator)
        self._watch = slot.HolderWatch()
        self._session: _Session | None = None

    async def run(self, sink: ChangeSink) -> None:
        """Read until cancelled; see `ChangeSource.run`."""
        await self._state.run(sink, lambda: self._run_once(sink))

    def request_progress(self) -> None:
        """Ask the server for its position, once per tick however often this is called."""
        if self._session is not None:
            self._session.request_progress()

    def status(self) -> SourceStatus:
        """Return what it does and how far it is."""
        return self._state.status()

    async def _run_once(self, sink: ChangeSink) -> None:
        """Start, and read until something breaks."""
        state = self._state
        state.starting("connecting")
        connection = await ReplicationConnection.open(
            self._options.database_url,
            slot_name=self._options.slot_name,
            may_wait=state.starts > 0,
        )
        try:
            starting = SlotStart(self._options, connection, self._watch, self._clock, state)
            identity, timing = await starting.start()
            state.stream.restart(
                system_identifier=identity.system_identifier,
                timeline=identity.timeline,
                wal_end=identity.wal_end,
            )
            state.streaming()
            sink.source_started(identity)
            self._session = _Session(connection, state, sink, clock=self._clock, timing=timing)
            await self._session.run()
        finally:
            self._session = None
            await connection.close()


@dataclass(frozen=True, slots=True)
class Timing:
    """When to send and when to give up.

    Attributes:
        status_interval_s: Seconds between two statuses.
        silence_s: Seconds of silence after which the link is dead; None if the server itself
            knows no timeout.
    """

    status_interval_s: float
    silence_s: float | None


class SlotStart:
    """The steps from an open connection to a running stream, for one attempt."""

    def __init__(
        self,
        options: ReaderOptions,
        connection: ReplicationConnection,
        watch: slot.HolderWatch,
        clock: Clock,
        state: ReaderState,
    ) -> None:
        """Take what the steps need.

        Args:
            options: What to read.
            connection: Open, not streaming.
            watch: Remembers the holder of the slot across attempts.
            clock: For how long the holder was silent.
            state: Told what the steps wait for; knows whether the slot must be made anew.
        """
        self._options = options
        self._connection = connection
        self._watch = watch
        self._clock = clock
        self._state = state
        self._status_interval_s = limits.STANDBY_STATUS_INTERVAL_S

    async def start(self) -> tuple[SourceIdentity, Timing]:
        """Take the steps; return what is read and in which rhythm.

        Raises:
            ConfigurationError: If no repetition can help.
            ReplicationError: If PostgreSQL refuses or does not answer.
        """
        timeout_s = await self._connection.sender_timeout_s()
        if timeout_s:
            self._status_interval_s = min(limits.STANDBY_STATUS_INTERVAL_S, timeout_s / 3)
        async with self._session() as session:
            while not await self._connection.try_lock():
                await self._wait_for_holder(session, "another reader holds the lock of the slot")
            await slot.check_requirements(session, self._options.publications)
            is_new = await self._ensure_slot(session)
            system = await self._connection.identify_system()
            is_new = await self._start_replication(session) or is_new
            status = await slot.inspect_slot(session, self._options.slot_name)
        if status is None:
            message = "the slot vanished while the stream was started"
            raise ReplicationError(message)
        identity = SourceIdentity(
            system_identifier=system.system_identifier,
            timeline=system.timeline,
            slot_name=self._options.slot_name,
            slot_is_new=is_new,
            start_lsn=status.confirmed_lsn,
            wal_end=system.flushed_lsn,
            slot_wal_bytes=smaller_limit(status.wal_bytes_max, self._options.slot_wal_bytes_max),
        )
        silence_s = timeout_s * limits.SILENT_LINK_TIMEOUTS or None
        return identity, Timing(self._status_interval_s, silence_s)

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[AsyncConnection[TupleRow]]:
        """Open an ordinary session for a while."""
        session = await open_session(
            self._options.database_url,
            slot_name=self._options.slot_name,
            is_replication=False,
            may_wait=True,
        )
        try:
            yield session
        finally:
            await session.close()

    async def _ensure_slot(self, session: AsyncConnection[TupleRow]) -> bool:
        """Make the slot if it does not exist or is lost; return whether it was made."""
        name = self._options.slot_name
        status = await slot.inspect_slot(session, name)
        if status is not None:
            if not status.is_lost and not self._state.must_renew_slot:
                return False
            await slot.drop_slot(session, name)
        self._state.starting("making the replication slot")
        async with self._session() as watcher:
            await slot.create_slot(session, watcher, name, self._report_alive)
        return True

    async def _report_alive(self, reason: str) -> None:
        """Report, and show other readers that we, who hold the lock, are alive."""
        self._state.starting(reason)
        await self._connection.show_life()

    async def _start_replication(self, session: AsyncConnection[TupleRow]) -> bool:
        """Start; wait for a holder, replace a slot that can not continue.

        Returns:
            Whether the slot was made anew.
        """
        is_new = False
        while True:
            try:
                await self._connection.start(self._options.publications)
            except ReplicationError as error:
                if error.sqlstate == SLOT_IN_USE:
                    await self._wait_for_holder(session, "the slot is in use")
                elif error.sqlstate == SLOT_INVALIDATED and not is_new:
                    self._state.must_renew_slot = True
                    is_new = await self._ensure_slot(session)
                else:
                    raise
            else:
                return is_new

    async def _wait_for_holder(self, session: AsyncConnection[TupleRow], what: str) -> None:
        """Wait a moment for whoever holds the slot; end its backend if it is ours and dead."""
        own = (session.info.backend_pid, self._connection.backend_pid)
        holder = await slot.find_holder(session, self._options.slot_name, except_pids=own)
        silent_s = self._status_interval_s * limits.SLOT_HOLDER_SILENT_INTERVALS
        now_s = self._clock.monotonic_s()
        if self._watch.is_dead(holder, silent_s=silent_s, now_s=now_s) and holder is not None:
            self._state.starting(f"{what}; ending the dead reader's process {holder.pid}")
            await slot.terminate_holder(session, holder)
        else:
            self._state.starting(f"{what} (process {'unknown' if holder is None else holder.pid})")
            await self._connection.show_life()
        await asyncio.sleep(min(limits.SLOT_WATCH_INTERVAL_S, self._status_interval_s))


class _Session:
    """One running stream: the pump, the beat, and requests for progress."""

    def __init__(
        self,
        connection: ReplicationConnection,
        state: ReaderState,
        sink: ChangeSink,
        *,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._connection = connection
        self._state = state
        self._stream = state.stream
        self._sink = sink
        self._clock = clock
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._beat_handle: asyncio.TimerHandle | None = None
        self._is_progress_requested = False
        self._started_at_s = self._heard_at_s = clock.monotonic_s()
        self._is_reading = True
        #: How often the server has asked for a status since the last one that we sent unasked.
        self._questions = 0

    async def run(self) -> None:
        """Read until something breaks."""
        self._beat()
        try:
            while True:
                await self._wait_until_room()
                if await self._read_turn():
                    await asyncio.sleep(0)
                else:
                    await self._connection.wait_input()
        finally:
            if self._beat_handle is not None:
                self._beat_handle.cancel()
            self._send_status(is_reply_requested=False)
            if self._clock.monotonic_s() - self._started_at_s >= limits.RECONNECT_WAIT_LAST_S:
                self._state.backoff.reset()

    def request_progress(self) -> None:
        if not self._is_progress_requested:
            self._is_progress_requested = True
            self._loop.call_soon(self._ask_for_progress)

    async def _read_turn(self) -> bool:
        """Handle the frames that are there, up to a bound; return whether there may be more."""
        self._connection.receive_input()
        for handled in range(limits.FRAMES_PER_TURN_MAX):
            frame = self._connection.next_frame()
            if frame is None:
                return handled > 0
            if not handled:
                self._heard_at_s = self._clock.monotonic_s()
            self._state.bytes_received += len(frame)
            event = self._stream.receive_frame(frame)
            if event is not None:
                await self._receive(event)
        return True

    async def _receive(self, event: StreamEvent) -> None:
        match event:
            case Transaction() as transaction:
                self._sink.receive_transaction(transaction)
                self._handed_on()
            case OversizeTransaction() as transaction:
                await self._not_reading(self._sink.receive_oversize(transaction))
                self._handed_on()
            case Keepalive() as keepalive:
                self._sink.receive_progress(self._stream.progress)
                if keepalive.is_reply_requested:
                    self._answer_question()

    def _answer_question(self) -> None:
        """Say how far we are, or make way for a PostgreSQL that is being shut down.

        It asks when it has not heard of us for half of its timeout, which the beat forestalls. And
        while it is shut down it asks again after every answer: it goes when all was confirmed,
        which a slot that trails does not do for minutes.

        Raises:
            ReplicationError: If it asks over and over.
        """
        self._questions += 1
        if self._questions > limits.STATUS_QUESTIONS_MAX:
            message = "PostgreSQL asks over and over what is confirmed: it is being shut down"
            raise ReplicationError(message)
        self._send_status(is_reply_requested=False)

    def _handed_on(self) -> None:
        self._state.backoff.reset()
        self._sink.receive_progress(self._stream.hand_on())

    async def _wait_until_room(self) -> None:
        if not self._sink.has_room():
            await self._not_reading(self._sink.wait_room())

    async def _not_reading(self, delivery: Awaitable[None]) -> None:
        """Wait for the sink; meanwhile the server's silence says nothing about the link."""
        self._is_reading = False
        try:
            await delivery
        finally:
            self._is_reading = True
            self._heard_at_s = self._clock.monotonic_s()

    def _beat(self) -> None:
        """Send a status in time, whatever the pump does; find out that the link is dead.

        Each status asks for an answer, so that silence means something.
        """
        silent_s = self._clock.monotonic_s() - self._heard_at_s
        silence_s = self._timing.silence_s
        if silence_s is not None and self._is_reading and silent_s > silence_s:
            message = f"nothing came from the server for {silent_s:.1f} s"
            self._connection.break_off(ReplicationError(message))
            return
        self._questions = 0
        self._send_status(is_reply_requested=True)
        self._beat_handle = self._loop.call_later(self._timing.status_interval_s, self._beat)

    def _ask_for_progress(self) -> None:
        self._is_progress_requested = False
        self._send_status(is_reply_requested=True)

    def _send_status(self, *, is_reply_requested: bool) -> None:
        for status in self._stream.statuses(
            self._sink.acknowledged_lsn(),
            now_us=int(self._clock.unix_s() * 1_000_000),
            is_reply_requested=is_reply_requested,
        ):
            self._connection.send(status)
