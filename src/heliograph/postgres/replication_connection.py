"""One connection in the streaming replication protocol, on the event loop: frames in and out.

psycopg's `pq` level, because its upper level knows no COPY BOTH. What the frames mean is the
business of ``core/replication``; when to read and what to answer, of `replication_source`.
The connection must be direct: a pooler in transaction mode can not carry it.
Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import psycopg
from psycopg import AsyncConnection, pq, sql
from psycopg.rows import TupleRow

from heliograph import limits
from heliograph.config import Secret
from heliograph.core.replication.lsn import Lsn, parse_lsn
from heliograph.errors import ConfigurationError, ReplicationError
from heliograph.postgres.connecting import failure_text, is_refusal

#: How values are written in the stream. A snapshot that is to join it must use the same.
TEXT_SETTINGS: Final = {
    "bytea_output": "hex",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
}

#: Timeouts of sessions that a role or database may set; a reader outlives them all. And it uses
#: nothing of anybody's schemas.
_ENDLESS_SETTINGS: Final = {
    "search_path": "",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

#: SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
SLOT_IN_USE: Final = "55006"
SLOT_INVALIDATED: Final = "55000"
UNDEFINED_OBJECT: Final = "42704"
INSUFFICIENT_PRIVILEGE: Final = "42501"

#: First half of the advisory lock's key; the second one is made of the slot's name.
LOCK_NAMESPACE: Final = 0x48454C49

#: With TLS, a record of up to 16 kB may stay in the library although the socket is empty; libpq
#: takes at least 8 kB per call.
_TLS_INPUT_CALLS: Final = 3

_APPLICATION_NAME_BYTES_MAX: Final = 63

#: Error classes whose text speaks of slots, settings and connections, never of rows.
_HARMLESS_CLASSES: Final = frozenset({"08", "28", "42", "53", "55", "57", "58"})


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """The answer to IDENTIFY_SYSTEM.

    Attributes:
        system_identifier: Unique per cluster, decimal text.
        timeline: Changes with each promotion.
        flushed_lsn: End of the log that is on disk.
    """

    system_identifier: str
    timeline: int
    flushed_lsn: Lsn


def reader_name(slot_name: str) -> str:
    """Return the application name of the reader of a slot."""
    return f"heliograph reader {slot_name}"[:_APPLICATION_NAME_BYTES_MAX]


def lock_key(slot_name: str) -> tuple[int, int]:
    """Return the two-part key of the advisory lock that the reader of a slot holds."""
    return LOCK_NAMESPACE, crc32(slot_name.encode()) & 0x7FFFFFFF


async def open_session(
    url: Secret, *, slot_name: str, is_replication: bool, may_wait: bool
) -> AsyncConnection[TupleRow]:
    """Open a session that writes values as the stream does.

    Args:
        url: Where to, as which login.
        slot_name: The reader's slot, for the application name.
        is_replication: Whether it is to stream (``replication=database``).
        may_wait: Whether a refusal may pass by itself, because it worked before.

    Raises:
        ConfigurationError: If the server refuses the login or the database and it never worked,
            or its encoding is SQL_ASCII, whose bytes need not be text.
        ReplicationError: If the server does not answer, or can not serve yet.
    """
    try:
        connection = await AsyncConnection.connect(
            url.reveal(),
            autocommit=True,
            connect_timeout=limits.POSTGRES_CONNECT_TIMEOUT_S,
            client_encoding="UTF8",
            application_name=reader_name(slot_name),
            replication="database" if is_replication else None,
            # psycopg prepares what it runs often, and a replication connection can not.
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        text = failure_text(error)
        # All walsenders in use: somebody else's may end.
        if is_refusal(error) and "max_wal_senders" not in str(error) and not may_wait:
            raise ConfigurationError(text) from None
        raise ReplicationError(text) from None
    try:
        _check_encoding(connection)
        await run_simple(connection, _set_statements())
    except BaseException:
        await connection.close()
        raise
    return connection


async def run_simple(
    connection: AsyncConnection[TupleRow], statement: sql.SQL | sql.Composed
) -> Sequence[TupleRow]:
    """Run a statement without parameters (replication connections take no others).

    Returns:
        The rows of the last result.

    Raises:
        ReplicationError: If PostgreSQL refuses it, or does not answer in time.
    """
    try:
        async with asyncio.timeout(limits.REPLICATION_ANSWER_TIMEOUT_S):
            cursor = await connection.execute(statement)
            return await cursor.fetchall() if cursor.description else ()
    except TimeoutError as cause:
        message = "the replication connection does not answer"
        raise ReplicationError(message) from cause
    except psycopg.Error as cause:
        raise refused(cause) from cause


def refused(error: psycopg.Error) -> ReplicationError:
    """Translate an error; its text is kept only if it can not hold row values."""
    state = error.sqlstate
    text = error.diag.message_primary or type(error).__name__
    is_harmless = state is None or state[:2] in _HARMLESS_CLASSES
    shown = text if is_harmless else "statement refused"
    return ReplicationError(f"{shown} (SQLSTATE {state or 'none'})", sqlstate=state)


def _check_encoding(connection: AsyncConnection[TupleRow]) -> None:
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        message = "the database has the encoding SQL_ASCII; its values need not be valid text"
        raise ConfigurationError(message)


def _set_statements() -> sql.Composed:
    settings = {**TEXT_SETTINGS, **_ENDLESS_SETTINGS}
    return sql.SQL(";").join(
        sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in settings.items()
    )


class ReplicationConnection:
    """A replication connection; first it takes statements, after `start` it streams.

    Not safe for several readers; one task reads, timers may `send`.
    """

    def __init__(self, connection: AsyncConnection[TupleRow], slot_name: str) -> None:
        """Take an open connection (`open`)."""
        self._connection = connection
        self._slot_name = slot_name
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._socket = -1
        self._is_reader_added = False
        self._is_writer_added = False
        self._waiter: asyncio.Future[None] | None = None
        self._broken: ReplicationError | None = None
        self._input_calls = _TLS_INPUT_CALLS if self._pgconn.ssl_in_use else 1

    @classmethod
    async def open(cls, url: Secret, *, slot_name: str, may_wait: bool) -> "ReplicationConnection":
        """Connect and choose the text settings; errors as of `open_session`."""
        connection = await open_session(
            url, slot_name=slot_name, is_replication=True, may_wait=may_wait
        )
        return cls(connection, slot_name)

    @property
    def backend_pid(self) -> int:
        """Process id of the walsender."""
        return self._pgconn.backend_pid

    async def try_lock(self) -> bool:
        """Take the slot's advisory lock if it is free.

        The lock and the walsender are one connection, so they die together.

        Raises:
            ReplicationError: If PostgreSQL does not answer.
        """
        statement = sql.SQL("SELECT pg_try_advisory_lock({}, {})").format(
            *map(sql.Literal, lock_key(self._slot_name))
        )
        ((has_lock,),) = await run_simple(self._connection, statement)
        return bool(has_lock)

    async def show_life(self) -> None:
        """Run an empty query, which renews the session's time in ``pg_stat_activity``.

        Raises:
            ReplicationError: If PostgreSQL does not answer.
        """
        await run_simple(self._connection, sql.SQL("SELECT"))

    async def identify_system(self) -> SystemIdentity:
        """Ask which history this is.

        Raises:
            ReplicationError: If PostgreSQL does not answer.
        """
        ((system, timeline, lsn, _),) = await run_simple(
            self._connection, sql.SQL("IDENTIFY_SYSTEM")
        )
        return SystemIdentity(str(system), int(timeline), parse_lsn(str(lsn)))

    async def sender_timeout_s(self) -> float:
        """Return ``wal_sender_timeout`` in seconds; 0 means none.

        Raises:
            ReplicationError: If PostgreSQL does not answer.
        """
        statement = sql.SQL("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'")
        ((milliseconds,),) = await run_simple(self._connection, statement)
        return int(milliseconds) / 1000

    async def start(self, publications: Sequence[str]) -> None:
        """Begin to stream from the slot's confirmed position.

        Raises:
            ReplicationError: If PostgreSQL refuses; the connection takes statements as before.
        """
        names = ",".join(sql.Identifier(name).as_string() for name in publications)
        statement = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0"
            " (proto_version '1', publication_names {}, messages 'true')"
        ).format(sql.Identifier(self._slot_name), sql.Literal(names))
        await run_simple(self._connection, statement)
        self._pgconn.nonblocking = 1
        # A number of our own for the socket: libpq closes its one whenever it notices that the
        # connection is lost, and whoever opens something next gets that number.
        self._socket = os.dup(self._pgconn.socket)

    def receive_input(self) -> None:
        """Take some of what the socket has; then call `next_frame` until it returns None.

        Do both until no frame comes before you `wait_input`: input may wait in the TLS library
        although the socket is empty, and of a socket that was reset the event loop (uvloop) says
        only once that it can be read.
        """
        try:
            for _ in range(self._input_calls):
                self._pgconn.consume_input()
        except psycopg.Error as error:
            self.break_off(refused(error))

    def next_frame(self) -> bytes | None:
        """Return the next frame that has arrived wholly, or None.

        Raises:
            ReplicationError: If there is none and the connection is over.
        """
        try:
            size, frame = self._pgconn.get_copy_data(1)
        except psycopg.Error as error:
            raise refused(error) from error
        if size > 0:
            return bytes(frame)
        if size < 0:
            raise self._ending()
        if self._broken is not None:
            raise self._broken
        return None

    async def wait_input(self) -> None:
        """Wait until the socket has something, or the connection was broken off."""
        if self._broken is not None:
            return
        self._waiter = self._loop.create_future()
        if not self._is_reader_added:
            self._loop.add_reader(self._socket, self._wake)
            self._is_reader_added = True
        try:
            await self._waiter
        finally:
            self._waiter = None

    def send(self, frame: bytes) -> None:
        """Send a frame without waiting; what the socket does not take now is sent later."""
        try:
            self._pgconn.put_copy_data(frame)
            self._flush()
        except psycopg.Error as error:
            self.break_off(refused(error))

    def break_off(self, error: ReplicationError) -> None:
        """Give the connection up: `next_frame` raises the error once nothing more is there."""
        self._broken = self._broken or error
        self._wake()

    async def close(self) -> None:
        """Close the connection at once; idempotent."""
        self._remove_reader()
        self._remove_writer()
        if self._socket >= 0:
            os.close(self._socket)
            self._socket = -1
        await self._connection.close()

    def _wake(self) -> None:
        """Resume who waits for input; while nobody does, do not ask the socket any more."""
        if self._waiter is None:
            self._remove_reader()
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _flush(self) -> None:
        if not self._pgconn.flush():
            self._remove_writer()
        elif not self._is_writer_added:
            self._loop.add_writer(self._socket, self._flush_again)
            self._is_writer_added = True

    def _flush_again(self) -> None:
        try:
            self._flush()
        except psycopg.Error as error:
            self._remove_writer()
            self.break_off(refused(error))

    def _remove_reader(self) -> None:
        if self._is_reader_added:
            self._loop.remove_reader(self._socket)
            self._is_reader_added = False

    def _remove_writer(self) -> None:
        if self._is_writer_added:
            self._loop.remove_writer(self._socket)
            self._is_writer_added = False

    def _ending(self) -> ReplicationError:
        """Return why the server ended the stream."""
        result = self._pgconn.get_result()
        state, text = None, None
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            state = _field(result, pq.DiagnosticField.SQLSTATE)
            text = _field(result, pq.DiagnosticField.MESSAGE_PRIMARY)
        if state is not None and state[:2] not in _HARMLESS_CLASSES:
            text = "the server ended the stream"
        message = f"{text or 'the stream ended'} (SQLSTATE {state or 'none'})"
        return ReplicationError(message, sqlstate=state)


def _field(result: pq.abc.PGresult, field: pq.DiagnosticField) -> str | None:
    value = result.error_field(field)
    return None if value is None else value.decode(errors="replace")
