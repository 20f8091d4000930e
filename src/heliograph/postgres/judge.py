"""The exact path: PostgreSQL judges WAL row versions as the subscriber's role.

One transaction per (role, claims), never more than one identity in it (`visibility.md` §4):
READ ONLY, REPEATABLE READ so that every answer comes from the one snapshot that is returned with
it, role, claims, headers, topic and search_path set afresh, always rolled back. The whole
transaction is one pipeline, so it costs one round trip.

Behind it, in the same round trip, a second snapshot closes the judgement: PostgreSQL looks up
functions, memberships and privileges as they are when they are used, which may be later than the
first snapshot, but never later than the second.

The connection is a login role that holds nothing but the roles it must assume.
Source: https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

import asyncio
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final, cast

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from heliograph import limits
from heliograph.core.replication.snapshot import Snapshot, parse_snapshot
from heliograph.errors import JudgementUnavailableError, RoleUnusableError, UnavailableError
from heliograph.postgres.connection_pool import make_pool
from heliograph.postgres.fair_gate import FairGate
from heliograph.postgres.judge_parts import JudgementInParts, RowError, one_round_trip
from heliograph.postgres.judge_statement import RowAnswer, RowBatch, parameters
from heliograph.postgres.rights_state import RightsQuestion, RightsState, read_state
from heliograph.postgres.row_errors import failure_in_words, is_row_error

#: What requests run with; policies are deparsed fully qualified, so it only matters inside
#: functions that set no search_path of their own.
REQUEST_SEARCH_PATH: Final = "public, extensions"

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
       pg_catalog.pg_current_snapshot()::text
"""

#: Every relation that the transaction has read, whatever read it: policy, view, SQL or PL/pgSQL
#: function, dynamic SQL. PostgreSQL locks a relation before it reads it and keeps the lock.
_RELATIONS_READ: Final = """
select coalesce(array_agg(distinct relation::bigint), '{}')
  from pg_catalog.pg_locks
 where pid = pg_catalog.pg_backend_pid() and locktype = 'relation' and relation >= 16384
"""


_Cursor = psycopg.AsyncCursor[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judging transaction found.

    Attributes:
        snapshot: The snapshot that every answer comes from.
        closing: What decides rights, read behind the last answer: whatever definition was used
            for any of them, this snapshot sees it.
        answers: For each batch the answer to each of its rows.
        relations_read: Oids of the relations that were read while judging.
        row_errors: Rows denied because judging them raised.
        took_s: Seconds for which a connection was held.
    """

    snapshot: Snapshot
    closing: RightsState
    answers: tuple[tuple[RowAnswer, ...], ...] = ()
    relations_read: frozenset[int] = frozenset()
    row_errors: tuple[RowError, ...] = ()
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call of `Judge.judge`."""

    role: str
    claims_json: str
    batches: Sequence[RowBatch]
    rights: RightsQuestion


def _pool(
    conninfo: str, connections_max: int, wait_s: float, *, min_size: int
) -> AsyncConnectionPool:
    return make_pool(
        conninfo,
        application_name="heliograph_judge",
        sizes=(min_size, connections_max),
        wait_s=wait_s,
        configure=_prepare,
    )


async def _prepare(connection: AsyncConnection) -> None:
    """Prepare what every judgement executes, before a failing one could skip it."""
    # Outside of the judging transaction, which sets it for itself: the closing statement is the
    # same each time, and planning it costs more than running it.
    await connection.execute("set plan_cache_mode = force_generic_plan")
    await connection.execute(_SETTINGS, ("none", "{}", "", "1000"), prepare=True)
    await connection.execute(_RELATIONS_READ, prepare=True)
    for reads_definitions in (False, True):
        statement = RightsQuestion(reads_definitions).statement()
        await connection.execute(*statement, prepare=True)


class Judge:
    """A few connections that judge; safe to use from many tasks at once."""

    def __init__(
        self,
        conninfo: str,
        *,
        connections_max: int = limits.JUDGEMENT_CONNECTIONS_MAX,
        timeout_s: float = limits.JUDGEMENT_TIMEOUT_S,
        stand_ins: Mapping[str, str] | None = None,
        other_logins: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing is opened before `open`.

        Args:
            conninfo: Connection string of the judging login.
            connections_max: Connections kept open.
            timeout_s: Statement timeout of each judgement, in seconds.
            stand_ins: For roles that the login may not assume because they pass by every policy:
                the role under which their filters, and nothing else, are judged.
            other_logins: For roles that another login judges, and nothing else: its connection
                string.
        """
        self._stand_ins = dict(stand_ins or {})
        self._timeout_s = timeout_s
        self._wait_s = timeout_s * limits.JUDGEMENT_CONNECTION_TIMEOUTS_MAX
        share = max(1, int(connections_max * limits.JUDGEMENT_CONNECTIONS_SHARE_MAX))
        self._joins = asyncio.Semaphore(share)
        self._slow = FairGate(share, _now_s)
        self._pool = _pool(conninfo, connections_max, self._wait_s, min_size=1)
        # Made when they are needed: the service role may never subscribe.
        self._by_role = {
            role: _pool(other, connections_max, self._wait_s, min_size=0)
            for role, other in (other_logins or {}).items()
        }

    async def open(self) -> None:
        """Connect.

        Raises:
            UnavailableError: If the login is refused or the server does not answer.
        """
        try:
            await self._pool.open(wait=True, timeout=limits.JUDGE_OPEN_TIMEOUT_S)
        except PoolTimeout as cause:
            await self._pool.close()
            message = "the judging login can not connect; run `heliograph doctor`"
            raise UnavailableError(message) from cause
        for pool in self._by_role.values():
            await pool.open()

    async def close(self) -> None:
        """Close every connection."""
        for pool in (self._pool, *self._by_role.values()):
            await pool.close()

    async def judge(
        self,
        role: str,
        claims_json: str,
        batches: Sequence[RowBatch],
        rights: RightsQuestion,
        *,
        slow_part: Hashable | None = None,
    ) -> Judgement:
        """Judge all batches under one identity in one snapshot.

        A batch that raises because of a row is judged again in parts, so that only the rows that
        raise are denied.

        Args:
            role: Role to assume.
            claims_json: What ``request.jwt.claims`` is set to.
            batches: Row versions by table.
            rights: What is read of the catalog behind the answers.
            slow_part: Set if it may hold its connection longer than others should wait: which part
                of the work for this identity it is. All such judgements together have a share of
                the connections, given to who has used it least (`FairGate`).

        Raises:
            JudgementUnavailableError: If no answer could be had now.
            RoleUnusableError: If the role can not be assumed.
        """
        if role in self._stand_ins and any(batch.statement.has_policy for batch in batches):
            message = f"role {role} passed row level security when the server started; restart it"
            raise RoleUnusableError(message)
        ask = _Asked(role, claims_json, batches, rights)
        is_slow = slow_part is not None
        gate = self._slow.place((role, claims_json), slow_part) if is_slow else nullcontext()
        async with gate, self._connection(role) as connection:
            began_s = _now_s()
            judgement = await self._judge_on(connection, ask)
            return replace(judgement, took_s=_now_s() - began_s)

    async def _judge_on(self, connection: AsyncConnection, ask: _Asked) -> Judgement:
        try:
            return await self._judge_together(connection, ask)
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
        return await self._judge_in_parts(connection, ask)

    @asynccontextmanager
    async def as_role(
        self, role: str, claims_json: str, *, is_join: bool = True
    ) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection inside a transaction of the role, for checks before a subscription.

        Args:
            role: Role to assume.
            claims_json: What ``request.jwt.claims`` is set to.
            is_join: Whether a client's join asks. All joins together have a share of the
                connections; the stream, which checks one thing after the other, does not wait
                for them.

        Raises:
            JudgementUnavailableError: If no connection could be had, or PostgreSQL failed.
            RoleUnusableError: If the role can not be assumed.
        """
        place = self._join_place() if is_join else nullcontext()
        async with place, self._connection(role) as connection:
            await self._become(connection, role, claims_json)
            yield connection

    @asynccontextmanager
    async def _join_place(self) -> AsyncGenerator[None]:
        """Wait until fewer joins than their share have a connection."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._joins.acquire()
        except TimeoutError as cause:
            message = "too many joins were being checked"
            raise JudgementUnavailableError(message, timed_out=False) from cause
        try:
            yield
        finally:
            self._joins.release()

    async def _become(self, connection: AsyncConnection, role: str, claims_json: str) -> _Cursor:
        try:
            return await self._begin(connection, role, claims_json)
        except psycopg.Error as cause:
            if is_row_error(cause):
                message = f"the judging login can not assume the role {role}"
                raise RoleUnusableError(message) from cause
            raise

    @asynccontextmanager
    async def _connection(self, role: str) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection and translate what PostgreSQL says into our errors."""
        pool = self._by_role.get(role, self._pool)
        work_s = self._timeout_s * limits.JUDGEMENT_STATEMENT_TIMEOUTS_MAX
        try:
            async with pool.connection() as connection, asyncio.timeout(work_s):
                try:
                    yield connection
                finally:
                    if not connection.closed:
                        await connection.rollback()
        except RoleUnusableError:
            raise
        except PoolTimeout as cause:
            message = "no judging connection was free in time"
            raise JudgementUnavailableError(message, timed_out=False) from cause
        except TimeoutError as cause:
            message = "the statements of one judgement took too long together"
            raise JudgementUnavailableError(message, timed_out=True) from cause
        except psycopg.Error as cause:
            timed_out = cause.sqlstate == "57014"
            message = f"judging failed: {failure_in_words(cause)}"
            raise JudgementUnavailableError(message, timed_out=timed_out) from cause

    async def _judge_together(self, connection: AsyncConnection, ask: _Asked) -> Judgement:
        async with one_round_trip(connection):
            settings = await self._begin(connection, ask.role, ask.claims_json)
            # Never prepared: a statement that names a row type keeps the type's oid, and a table
            # dropped and made again has another.
            cursors = [
                await connection.execute(
                    b.statement.query, parameters(b.statement, b.rows), prepare=False
                )
                for b in ask.batches
            ]
            locks = None
            if any(batch.statement.reads_tables for batch in ask.batches):
                locks = await connection.execute(_RELATIONS_READ)
            await connection.execute("rollback", prepare=False)
            closing = await connection.execute(*ask.rights.statement())
        answers = [tuple(await cursor.fetchall()) for cursor in cursors]
        return Judgement(
            snapshot=await _snapshot(settings),
            closing=await read_state(closing, ask.rights),
            answers=tuple(answers),
            relations_read=frozenset() if locks is None else await _oids(locks),
        )

    async def _judge_in_parts(self, connection: AsyncConnection, ask: _Asked) -> Judgement:
        await connection.rollback()
        settings = await self._become(connection, ask.role, ask.claims_json)
        parts = JudgementInParts(connection)
        answers = [await parts.judge(batch) for batch in ask.batches]
        await parts.finish()
        async with one_round_trip(connection):
            locks = await connection.execute(_RELATIONS_READ)
            await connection.execute("rollback", prepare=False)
            closing = await connection.execute(*ask.rights.statement())
        return Judgement(
            snapshot=await _snapshot(settings),
            closing=await read_state(closing, ask.rights),
            answers=tuple(answers),
            relations_read=await _oids(locks),
            row_errors=tuple(parts.errors),
        )

    async def _begin(self, connection: AsyncConnection, role: str, claims_json: str) -> _Cursor:
        await connection.execute(_BEGIN, prepare=False)
        timeout_ms = str(int(self._timeout_s * 1000))
        return await connection.execute(
            _SETTINGS,
            (self._stand_ins.get(role, role), claims_json, REQUEST_SEARCH_PATH, timeout_ms),
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _snapshot(cursor: _Cursor) -> Snapshot:
    row = await cursor.fetchone()
    if row is None:
        message = "PostgreSQL did not tell its snapshot"
        raise JudgementUnavailableError(message, timed_out=False)
    return parse_snapshot(str(row[-1]))


async def _oids(cursor: _Cursor) -> frozenset[int]:
    row = await cursor.fetchone()
    return frozenset(cast("list[int]", row[0])) if row is not None else frozenset()
