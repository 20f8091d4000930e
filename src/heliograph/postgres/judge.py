"""The exact path: PostgreSQL judges WAL row versions as the subscriber's role.

One transaction per (role, claims), never more than one identity in it (`visibility.md` §4):
READ ONLY, REPEATABLE READ so that every answer comes from the one snapshot that is returned with
it, role, claims, headers, topic and search_path set afresh, always rolled back. The whole
transaction is one pipeline, so it costs one round trip.

The connection is a login role that holds nothing but the roles it must assume.
Source: https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import psycopg
from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from heliograph import limits
from heliograph.core.replication.lsn import Lsn, parse_lsn
from heliograph.core.replication.snapshot import Snapshot, parse_snapshot
from heliograph.errors import JudgementUnavailableError, RoleUnusableError, UnavailableError
from heliograph.postgres.catalog_text import CatalogText
from heliograph.postgres.filter_sql import FilterExpression, identifier

#: What requests run with; policies are deparsed fully qualified, so it only matters inside
#: functions that set no search_path of their own.
REQUEST_SEARCH_PATH: Final = "public, extensions"

#: SQLSTATE classes that a row itself causes: that row is denied to that subscriber. 25 is what a
#: policy function gets that tries to write.
_ROW_ERROR_CLASSES: Final = frozenset({"22", "25", "42", "P0"})

_BEGIN: Final = "begin isolation level repeatable read read only"

_SETTINGS: Final = """
select set_config('role', %s, true),
       set_config('request.jwt.claims', %s, true),
       set_config('request.jwt.claim.sub', '', true),
       set_config('request.jwt.claim.role', '', true),
       set_config('request.jwt.claim.email', '', true),
       set_config('request.headers', '{}', true),
       set_config('realtime.topic', '', true),
       set_config('search_path', %s, true),
       set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('statement_timeout', %s, true),
       pg_catalog.pg_current_snapshot()::text,
       pg_catalog.pg_current_wal_insert_lsn()::text
"""

#: Every relation that the transaction has read, whatever read it: policy, view, SQL or PL/pgSQL
#: function, dynamic SQL. PostgreSQL locks a relation before it reads it and keeps the lock.
_RELATIONS_READ: Final = """
select coalesce(array_agg(distinct relation::bigint), '{}')
  from pg_catalog.pg_locks
 where pid = pg_catalog.pg_backend_pid() and locktype = 'relation' and relation >= 16384
"""


@dataclass(frozen=True, slots=True)
class JudgementStatement:
    """A prepared question about rows of one table.

    Attributes:
        table_oid: The table.
        query: SQL whose last parameter is the array of composite texts; one result row per
            element, in order: first column the policies' answer, then one per filter term.
        parameters: The parameters before the last: constants of the filters.
        reads_tables: Whether the policies may read other relations, so that those must be asked
            for after the judgement.
    """

    table_oid: int
    query: sql.Composed
    parameters: tuple[str | list[str], ...]
    reads_tables: bool


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Row versions of one table that wait for judgement.

    Attributes:
        statement: The question.
        rows: Composite texts (`record_literal`).
    """

    statement: JudgementStatement
    rows: Sequence[str]


_Cursor = psycopg.AsyncCursor[tuple[object, ...]]

#: One answer per result column; None is SQL NULL. An empty tuple: judging this row raised.
RowAnswer = tuple[bool | None, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judging transaction found.

    Attributes:
        snapshot: The snapshot that every answer comes from.
        insert_lsn: WAL insert position taken after the snapshot: whatever the snapshot sees
            committed below it.
        answers: For each batch the answer to each of its rows.
        relations_read: Oids of the relations that were read while judging.
        row_errors: Rows denied because judging them raised, by SQLSTATE.
    """

    snapshot: Snapshot
    insert_lsn: Lsn
    answers: tuple[tuple[RowAnswer, ...], ...]
    relations_read: frozenset[int]
    row_errors: tuple[str, ...] = ()


class Judge:
    """A few connections that judge; safe to use from many tasks at once."""

    def __init__(
        self,
        conninfo: str,
        *,
        connections_max: int = limits.JUDGEMENT_CONNECTIONS_MAX,
        timeout_s: float = limits.JUDGEMENT_TIMEOUT_S,
        stand_ins: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing is opened before `open`.

        Args:
            conninfo: Connection string of the judging login.
            connections_max: Connections kept open.
            timeout_s: Statement timeout of each judgement, in seconds.
            stand_ins: For roles that the login may not assume because they pass by every policy:
                the role under which their filters, and nothing else, are judged.
        """
        self._stand_ins = dict(stand_ins or {})
        self._timeout_s = timeout_s
        self._pool = AsyncConnectionPool(
            conninfo,
            min_size=1,
            max_size=connections_max,
            open=False,
            name="heliograph-judge",
            timeout=timeout_s * 5,
            kwargs={"autocommit": True, "application_name": "heliograph_judge"},
        )

    async def open(self) -> None:
        """Connect.

        Raises:
            UnavailableError: If the login is refused or the server does not answer.
        """
        try:
            await self._pool.open(wait=True, timeout=10.0)
        except PoolTimeout as cause:
            await self._pool.close()
            message = "the judging login can not connect; run `heliograph doctor`"
            raise UnavailableError(message) from cause

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def judge(self, role: str, claims_json: str, batches: Sequence[RowBatch]) -> Judgement:
        """Judge all batches under one identity in one snapshot.

        A batch that raises because of a row is judged again row by row, so that only the rows
        that raise are denied.

        Args:
            role: Role to assume.
            claims_json: What ``request.jwt.claims`` is set to.
            batches: Row versions by table.

        Raises:
            JudgementUnavailableError: If no answer could be had now.
            RoleUnusableError: If the role can not be assumed.
        """
        async with self._connection() as connection:
            try:
                return await self._judge_together(connection, role, claims_json, batches)
            except psycopg.Error as error:
                if not _is_row_error(error):
                    raise
            return await self._judge_row_by_row(connection, role, claims_json, batches)

    @asynccontextmanager
    async def as_role(self, role: str, claims_json: str) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection inside a transaction of the role, for checks before a subscription.

        Raises:
            JudgementUnavailableError: If no connection could be had, or PostgreSQL failed.
            RoleUnusableError: If the role can not be assumed.
        """
        async with self._connection() as connection:
            await self._become(connection, role, claims_json)
            yield connection

    async def _become(self, connection: AsyncConnection, role: str, claims_json: str) -> _Cursor:
        try:
            return await self._begin(connection, role, claims_json)
        except psycopg.Error as cause:
            if _is_row_error(cause):
                message = f"the judging login can not assume the role {role}"
                raise RoleUnusableError(message) from cause
            raise

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection and translate what PostgreSQL says into our errors."""
        try:
            async with asyncio.timeout(self._timeout_s * 10), self._pool.connection() as connection:
                try:
                    yield connection
                finally:
                    if not connection.closed:
                        await connection.rollback()
        except RoleUnusableError:
            raise
        except (PoolTimeout, TimeoutError) as cause:
            message = "no judging connection was free in time"
            raise JudgementUnavailableError(message, timed_out=False) from cause
        except psycopg.Error as cause:
            timed_out = cause.sqlstate == "57014"
            message = f"judging failed with SQLSTATE {cause.sqlstate or '08006'}"
            raise JudgementUnavailableError(message, timed_out=timed_out) from cause

    async def _judge_together(
        self,
        connection: AsyncConnection,
        role: str,
        claims_json: str,
        batches: Sequence[RowBatch],
    ) -> Judgement:
        async with connection.pipeline():
            settings = await self._begin(connection, role, claims_json)
            # Never prepared: a statement that names a row type keeps the type's oid, and a table
            # dropped and made again has another.
            cursors = [
                await connection.execute(b.statement.query, _parameters(b), prepare=False)
                for b in batches
            ]
            locks = None
            if any(batch.statement.reads_tables for batch in batches):
                locks = await connection.execute(_RELATIONS_READ)
            await connection.execute("rollback")
        snapshot, insert_lsn = await _position(settings)
        answers = [tuple(await cursor.fetchall()) for cursor in cursors]
        read = frozenset[int]() if locks is None else await _oids(locks)
        return Judgement(snapshot, insert_lsn, tuple(answers), read)

    async def _begin(self, connection: AsyncConnection, role: str, claims_json: str) -> _Cursor:
        await connection.execute(_BEGIN)
        timeout_ms = str(int(self._timeout_s * 1000))
        return await connection.execute(
            _SETTINGS,
            (self._stand_ins.get(role, role), claims_json, REQUEST_SEARCH_PATH, timeout_ms),
        )

    async def _judge_row_by_row(
        self,
        connection: AsyncConnection,
        role: str,
        claims_json: str,
        batches: Sequence[RowBatch],
    ) -> Judgement:
        await connection.rollback()
        settings = await self._become(connection, role, claims_json)
        snapshot, insert_lsn = await _position(settings)
        errors: list[str] = []
        answers = [
            tuple([await _judge_one(connection, batch, row, errors) for row in batch.rows])
            for batch in batches
        ]
        read = await _oids(await connection.execute(_RELATIONS_READ))
        await connection.rollback()
        return Judgement(snapshot, insert_lsn, tuple(answers), read, tuple(errors))


async def _judge_one(
    connection: AsyncConnection, batch: RowBatch, row: str, errors: list[str]
) -> RowAnswer:
    await connection.execute("savepoint heliograph_row")
    try:
        cursor = await connection.execute(
            batch.statement.query, (*batch.statement.parameters, [row]), prepare=False
        )
        answer = cast("RowAnswer", await cursor.fetchone() or ())
    except psycopg.Error as error:
        if not _is_row_error(error):
            raise
        errors.append(error.sqlstate or "")
        answer = ()
    await connection.execute("rollback to savepoint heliograph_row")
    return answer


def _parameters(batch: RowBatch) -> tuple[object, ...]:
    return (*batch.statement.parameters, list(batch.rows))


async def _position(cursor: _Cursor) -> tuple[Snapshot, Lsn]:
    row = await cursor.fetchone()
    if row is None:
        message = "PostgreSQL did not tell its snapshot"
        raise JudgementUnavailableError(message, timed_out=False)
    return parse_snapshot(str(row[-2])), parse_lsn(str(row[-1]))


async def _oids(cursor: _Cursor) -> frozenset[int]:
    row = await cursor.fetchone()
    return frozenset(cast("list[int]", row[0])) if row is not None else frozenset()


def _is_row_error(error: psycopg.Error) -> bool:
    return (error.sqlstate or "")[:2] in _ROW_ERROR_CLASSES


def build_statement(
    *,
    table: tuple[int, str, str],
    policy: str | None,
    filters: Sequence[FilterExpression],
    reads_tables: bool,
) -> JudgementStatement:
    """Compose the question for one table and role.

    The row source is named like the table and yields its row type, so that a policy's text, as
    ``pg_get_expr`` prints it, means the same as on the table: column names, ``table.column`` in
    sub-selects and whole-row references.

    Args:
        table: oid, schema and name.
        policy: The policies' expression, deparsed with an empty search_path; None: all rows show.
        filters: Expressions over the row, with their parameters, asked only where the policies
            say yes (S14).
        reads_tables: See `JudgementStatement`.
    """
    oid, schema, name = table
    parameters: list[str | list[str]] = []
    columns: list[sql.Composable] = []
    for term in filters:
        columns.append(
            sql.SQL("case when heliograph_policy.shows then ({}) end").format(term.expression)
        )
        parameters.extend(term.parameters)
    source = sql.SQL("unnest(%s::text[]::{}[]) as {}").format(
        identifier(schema, name), identifier(name)
    )
    shows = CatalogText(policy or "true")
    if not columns:
        query = sql.SQL("select ({}) from {}").format(shows, source)
        return JudgementStatement(oid, query, (), reads_tables)
    # `offset 0` keeps the sub-select whole: the policies run once per row, before any filter.
    query = sql.SQL(
        "select heliograph_policy.shows, {} from {}"
        " cross join lateral (select ({}) as shows offset 0) as heliograph_policy"
    ).format(sql.SQL(", ").join(columns), source, shows)
    return JudgementStatement(oid, query, tuple(parameters), reads_tables)


async def is_usable(connection: AsyncConnection, statement: JudgementStatement) -> str | None:
    """Try a question on no row, as the role: what fails here would fail on every row.

    Args:
        connection: From `Judge.as_role`.
        statement: The question.

    Returns:
        The SQLSTATE of the refusal (class 42: no such name, no privilege); None when it works.
    """
    empty: list[str] = []
    try:
        await connection.execute(statement.query, (*statement.parameters, empty), prepare=False)
    except psycopg.Error as cause:
        if (cause.sqlstate or "")[:2] != "42":
            raise
        return cause.sqlstate
    return None
