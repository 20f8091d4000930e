"""The change source for hosts that forbid replication connections: polls the slot through SQL.

``pg_logical_slot_peek_binary_changes`` gives the messages without confirming anything; only what
the sink keeps is confirmed, by ``pg_replication_slot_advance``. (``…_get_…`` would confirm before
we have anything.) The same guarantees as streaming, but slower: a change waits for the next poll,
and PostgreSQL decodes everything since the confirmed position for each one.
"""

import asyncio
import contextlib
import random  # noqa: TID251 - only the type: the caller gives the generator
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from heliograph import limits
from heliograph.core.replication.lsn import ZERO_LSN, Lsn, format_lsn, parse_lsn
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import ReplicationError
from heliograph.ports.change_source import ChangeSink, SourceIdentity, SourceStatus
from heliograph.ports.clock import Clock
from heliograph.postgres import slot
from heliograph.postgres.reader_state import ReaderOptions, ReaderState
from heliograph.postgres.replication_connection import (
    lock_key,
    open_session,
    refused,
    run_simple,
)

_HISTORY: Final = """
    select system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
           pg_current_wal_flush_lsn()::text
      from pg_control_system()
"""

#: A cursor of SQL, not of the driver: it ends with its transaction, also when a poll is cancelled.
_PEEK: Final = """
    declare heliograph_poll no scroll cursor for
     select data from pg_logical_slot_peek_binary_changes(
        %s, null, %s, 'proto_version', '1', 'publication_names', %s, 'messages', 'true')
"""

_FETCH: Final = f"fetch forward {limits.POLL_FETCH_ROWS} from heliograph_poll"

_ADVANCE: Final = "select pg_replication_slot_advance(%s, %s)"


class PollingSource:
    """A `ChangeSource` that polls; see the module."""

    def __init__(self, options: ReaderOptions, *, clock: Clock, generator: random.Random) -> None:
        """Wire it; arguments as of `StreamingSource`."""
        self._options = options
        self._clock = clock
        self._state = ReaderState(options, generator)
        self._stream = self._state.stream
        self._watch = slot.HolderWatch()
        self._is_progress_wanted = asyncio.Event()
        #: Messages that the next poll will see again, because they are not confirmed yet.
        self._repeated_messages = 0
        self._confirmed = ZERO_LSN
        self._confirm_at_s = 0.0

    async def run(self, sink: ChangeSink) -> None:
        """Read until cancelled; see `ChangeSource.run`."""
        await self._state.run(sink, lambda: self._run_once(sink))

    def request_progress(self) -> None:
        """Poll now instead of at the end of the interval."""
        self._is_progress_wanted.set()

    def status(self) -> SourceStatus:
        """Return what it does and how far it is."""
        return self._state.status()

    async def _run_once(self, sink: ChangeSink) -> None:
        self._state.starting("connecting")
        async with self._open(may_wait=self._state.starts > 0) as session:
            identity = await self._start(session)
            self._restart_stream(identity, identity.wal_end)
            self._state.streaming()
            sink.source_started(identity)
            self._confirm_at_s = self._clock.monotonic_s() + limits.POLL_CONFIRM_INTERVAL_S
            while True:
                await self._poll(session, sink, identity)
                self._state.backoff.reset()
                await self._confirm(session, sink)
                await self._pause()

    def _restart_stream(self, identity: SourceIdentity, wal_end: Lsn) -> None:
        self._stream.restart(
            system_identifier=identity.system_identifier,
            timeline=identity.timeline,
            wal_end=wal_end,
        )

    @asynccontextmanager
    async def _open(self, *, may_wait: bool) -> AsyncGenerator[AsyncConnection[TupleRow]]:
        session = await open_session(
            self._options.database_url,
            slot_name=self._options.slot_name,
            is_replication=False,
            may_wait=may_wait,
        )
        try:
            yield session
        finally:
            await session.close()

    async def _start(self, session: AsyncConnection[TupleRow]) -> SourceIdentity:
        """Take the lock, check, make the slot if there is none; return what is read."""
        name = self._options.slot_name
        lock = sql.SQL("SELECT pg_try_advisory_lock({}, {})").format(
            *map(sql.Literal, lock_key(name))
        )
        while (await run_simple(session, lock))[0][0] is not True:
            await self._wait_for_holder(session)
        await slot.check_requirements(session, self._options.publications)
        status = await slot.inspect_slot(session, name)
        is_new = status is None or status.is_lost or self._state.must_renew_slot
        if is_new:
            if status is not None:
                await slot.drop_slot(session, name)
            self._state.starting("making the replication slot")
            async with self._open(may_wait=True) as watcher:
                await slot.create_slot(session, watcher, name, self._report)
            status = await slot.inspect_slot(session, name)
        ((system, timeline, wal_end),) = await run_simple(session, sql.SQL(_HISTORY))
        self._confirmed = ZERO_LSN if status is None else status.confirmed_lsn
        return SourceIdentity(
            system_identifier=system,
            timeline=int(timeline, 16),
            slot_name=name,
            slot_is_new=is_new,
            start_lsn=self._confirmed,
            wal_end=parse_lsn(wal_end),
            is_polled=True,
        )

    async def _report(self, reason: str) -> None:
        self._state.starting(reason)

    async def _wait_for_holder(self, session: AsyncConnection[TupleRow]) -> None:
        """Wait a moment for the reader that holds the lock; end its backend if it is dead."""
        holder = await slot.find_holder(
            session, self._options.slot_name, except_pids=(session.info.backend_pid,)
        )
        silent_s = limits.STANDBY_STATUS_INTERVAL_S * limits.SLOT_HOLDER_SILENT_INTERVALS
        now_s = self._clock.monotonic_s()
        if self._watch.is_dead(holder, silent_s=silent_s, now_s=now_s) and holder is not None:
            await slot.terminate_holder(session, holder)
        pid = "unknown" if holder is None else holder.pid
        self._state.starting(f"another reader holds the slot's lock (process {pid})")
        await asyncio.sleep(limits.SLOT_WATCH_INTERVAL_S)

    async def _poll(
        self, session: AsyncConnection[TupleRow], sink: ChangeSink, identity: SourceIdentity
    ) -> None:
        """Hand on every whole transaction that has committed since the confirmed position.

        Each poll is a decoding session of its own: the tables are described again.
        """
        self._is_progress_wanted.clear()
        ((flushed,),) = await run_simple(
            session, sql.SQL("SELECT pg_current_wal_flush_lsn()::text")
        )
        self._restart_stream(identity, parse_lsn(flushed))
        most = limits.POLL_CHANGES_MAX + self._repeated_messages
        count = 0
        async with contextlib.aclosing(self._messages(session, most)) as messages:
            async for payload in messages:
                count += 1
                self._state.bytes_received += len(payload)
                await self._receive(sink, payload)
        if count < most:
            # Nothing was cut off: what had been flushed before the poll has been read.
            self._stream.receive_wal_end(parse_lsn(flushed))
            sink.receive_progress(self._stream.progress)
        else:
            # Cut off: what is not confirmed by then comes again, and the next poll looks beyond.
            self._repeated_messages = count

    async def _messages(
        self, session: AsyncConnection[TupleRow], most: int
    ) -> AsyncGenerator[bytes]:
        """Yield the messages of one poll; a cursor bounds what is in memory."""
        names = ",".join(sql.Identifier(name).as_string() for name in self._options.publications)
        try:
            async with session.transaction():
                await self._execute(session, _PEEK, (self._options.slot_name, most, names))
                rows = await (await self._execute(session, _FETCH)).fetchall()
                await self._require_unmoved(session)
                while rows:
                    for (payload,) in rows:
                        yield payload
                    rows = await (await self._execute(session, _FETCH)).fetchall()
        except TimeoutError as cause:
            message = "PostgreSQL does not answer the poll of the slot"
            raise ReplicationError(message) from cause
        except psycopg.Error as cause:
            raise refused(cause) from cause

    async def _require_unmoved(self, session: AsyncConnection[TupleRow]) -> None:
        """Break off if somebody else has moved the slot: it is free between two polls.

        Asked after the first rows have come (they are decoded at once) and before they are handed
        on; the next start then finds what is missing.
        """
        status = await slot.inspect_slot(session, self._options.slot_name)
        read_up_to = max(self._confirmed, self._stream.progress)
        if status is None or status.confirmed_lsn > read_up_to:
            message = "the replication slot was moved by somebody else"
            raise ReplicationError(message)

    async def _execute(
        self,
        session: AsyncConnection[TupleRow],
        statement: str,
        parameters: Sequence[object] | None = None,
    ) -> psycopg.AsyncCursor[TupleRow]:
        async with asyncio.timeout(limits.POLL_TIMEOUT_S):
            return await session.execute(statement.encode(), parameters, binary=True)

    async def _receive(self, sink: ChangeSink, payload: bytes) -> None:
        match self._stream.receive_message(payload):
            case None:
                return
            case Transaction() as transaction:
                if not sink.has_room():
                    await sink.wait_room()
                sink.receive_transaction(transaction)
            case OversizeTransaction() as transaction:
                await sink.receive_oversize(transaction)
        sink.receive_progress(self._stream.hand_on())

    async def _confirm(self, session: AsyncConnection[TupleRow], sink: ChangeSink) -> None:
        """Confirm what the sink keeps, now and then: PostgreSQL decodes again for it."""
        now_s = self._clock.monotonic_s()
        confirmed = self._stream.confirm(sink.acknowledged_lsn())
        if now_s < self._confirm_at_s or confirmed <= self._confirmed:
            return
        statement = sql.SQL(_ADVANCE.replace("%s", "{}")).format(
            sql.Literal(self._options.slot_name), sql.Literal(format_lsn(confirmed))
        )
        await run_simple(session, statement)
        self._confirmed = confirmed
        self._repeated_messages = 0
        self._confirm_at_s = now_s + limits.POLL_CONFIRM_INTERVAL_S

    async def _pause(self) -> None:
        """Wait for the next poll, or until somebody asks for progress."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.POLL_INTERVAL_S):
                await self._is_progress_wanted.wait()
