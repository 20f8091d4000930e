"""`ports.sql_session` over psycopg: one connection, errors told apart by whether a retry helps.

Not for judging what a subscriber may see (`judge.py`): the session runs as the role of its URL.
SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import psycopg
from psycopg.rows import DictRow, dict_row

from heliograph import limits
from heliograph.errors import HeliographError, StorageError, UnavailableError
from heliograph.ports.sql_session import SqlSession

#: Connection lost, transaction broken off for another one, no resources, object in use, operator
#: intervention (shutdown, cancel): the same classes that judgement repeats.
_RETRYABLE_CLASSES: Final = frozenset({"08", "40", "53", "55", "57"})


class PsycopgSqlSession:
    """A `SqlSession` over an open autocommit connection, which stays the caller's to close."""

    def __init__(self, connection: psycopg.AsyncConnection[DictRow]) -> None:
        """Take the connection; its rows must be made by `psycopg.rows.dict_row`."""
        self._connection = connection

    async def execute(
        self, sql: str, parameters: Sequence[object] = ()
    ) -> Sequence[Mapping[str, object]]:
        """Run SQL and return the rows of its result; see `SqlSession.execute`."""
        rows, _ = await self._run(sql, parameters)
        return rows

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """Surround statements by one transaction; see `SqlSession.transaction`."""
        await self._run("begin")
        try:
            yield
        except BaseException:
            # What went wrong matters more than that it can not be rolled back, which means that
            # the connection is lost and PostgreSQL rolls back by itself.
            with suppress(UnavailableError):
                await self._run("rollback")
            raise
        _, outcome = await self._run("commit")
        if outcome == "ROLLBACK":
            message = "the transaction was rolled back: a statement in it had failed"
            raise StorageError(message)

    async def _run(
        self, sql: str, parameters: Sequence[object] = ()
    ) -> tuple[Sequence[Mapping[str, object]], str | None]:
        """Run SQL; return the rows and what PostgreSQL says that it did (the command tag)."""
        timeout_s = limits.SQL_STATEMENT_TIMEOUT_S + limits.SQL_ANSWER_MARGIN_S
        try:
            async with asyncio.timeout(timeout_s):
                cursor = await self._connection.execute(sql.encode(), parameters or None)
                rows = await cursor.fetchall() if cursor.description is not None else ()
                return rows, cursor.statusmessage
        except TimeoutError as error:
            # Nobody knows what state it is in.
            await self._connection.close()
            message = "PostgreSQL does not answer"
            raise UnavailableError(message) from error
        except psycopg.Error as error:
            raise _translate(error) from error


@asynccontextmanager
async def open_sql_session(
    database_url: str, *, application_name: str
) -> AsyncGenerator[SqlSession]:
    """Connect, give the session, and close the connection at the end.

    Args:
        database_url: libpq connection URL or key-value string.
        application_name: What ``pg_stat_activity`` shows.

    Raises:
        UnavailableError: If the database does not answer or refuses the connection. The message
            holds neither the URL nor libpq's text, which may name the password's file or user.
    """
    try:
        connection = await psycopg.AsyncConnection[DictRow].connect(
            database_url,
            autocommit=True,
            row_factory=dict_row,
            application_name=application_name,
            connect_timeout=int(limits.SQL_CONNECT_TIMEOUT_S),
            client_encoding="UTF8",
        )
    except psycopg.Error as error:
        message = f"the database refuses the connection or is not there ({_kind(error)})"
        raise UnavailableError(message) from error
    try:
        session = PsycopgSqlSession(connection)
        timeout_ms = str(int(limits.SQL_STATEMENT_TIMEOUT_S * 1000))
        # Not as libpq `options`: those would replace what the URL sets there.
        await session.execute("select set_config('statement_timeout', %s, false)", (timeout_ms,))
        yield session
    finally:
        await connection.close()


def _translate(error: psycopg.Error) -> HeliographError:
    state = error.sqlstate
    lost = isinstance(error, psycopg.OperationalError) and state is None
    if lost or (state is not None and state[:2] in _RETRYABLE_CLASSES):
        message = f"PostgreSQL broke the statement off ({_kind(error)})"
        return UnavailableError(message)
    message = f"PostgreSQL refused the statement ({_kind(error)})"
    return StorageError(message)


def _kind(error: psycopg.Error) -> str:
    """Return what may be shown: class and SQLSTATE. The text may hold row values."""
    return f"{type(error).__name__}, SQLSTATE {error.sqlstate or 'none'}"
