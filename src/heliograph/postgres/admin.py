"""The server's own connections: catalog, positions, nudges, following what policies read.

The login is ``DATABASE_URL``'s. Nothing that a client sends reaches a statement here except as a
bound value.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from heliograph import limits
from heliograph.core.replication.lsn import Lsn, parse_lsn
from heliograph.core.replication.snapshot import Snapshot, parse_snapshot
from heliograph.errors import UnavailableError
from heliograph.postgres.connection_pool import make_pool
from heliograph.postgres.rights_state import RightsQuestion, RightsState, read_state
from heliograph.postgres.row_errors import failure_in_words
from heliograph.postgres.slot_limit import smaller_limit

_TIMEOUTS: Final = (
    "select set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)"
)

_POSITION: Final = (
    "select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_wal_insert_lsn()::text"
)

_RELATIONS: Final = """
select c.oid::bigint, c.relkind::text, c.relpersistence = 'p',
       coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)::oid::bigint
  from pg_catalog.pg_class c where c.oid = any(%s::oid[])
"""

_SLOT: Final = """
select w.lsn::text, pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn), s.safe_wal_size,
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size'))
  from pg_catalog.pg_current_wal_lsn() as w(lsn)
  left join pg_catalog.pg_replication_slots s on s.slot_name = %s
"""

#: Where every row and every operation is published: rights must not change unseen.
_FOLLOWED: Final = """
select distinct c.oid::bigint
  from pg_catalog.pg_publication_tables p
  join pg_catalog.pg_publication b on b.pubname = p.pubname
  join pg_catalog.pg_namespace n on n.nspname = p.schemaname
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
 where p.pubname = any(%s) and p.rowfilter is null
   and b.pubinsert and b.pubupdate and b.pubdelete and b.pubtruncate
"""

#: Tables and functions that the policies of a table name, views seen through; text of functions.
_POLICY_DEPENDENCIES: Final = """
with recursive named(classid, objid) as (
  select d.refclassid, d.refobjid
    from pg_catalog.pg_policy p
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
   where p.polrelid = any(%(tables)s::oid[])
  union
  select d.refclassid, d.refobjid
    from named v
    join pg_catalog.pg_rewrite w on v.classid = 'pg_catalog.pg_class'::regclass
                                and w.ev_class = v.objid
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass
                               and d.objid = w.oid
   where d.refobjid <> v.objid
)
select distinct case when classid = 'pg_catalog.pg_class'::regclass then 'relation'
                     else 'function' end, objid::bigint
  from named
 where classid in ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass)
   and objid >= 16384
"""

_FUNCTION_SOURCES: Final = """
select p.oid::bigint, p.proname, coalesce(pg_catalog.pg_get_functiondef(p.oid), p.prosrc)
  from pg_catalog.pg_proc p
 where p.oid >= 16384 and p.prokind = 'f'
   and p.prolang <> (select oid from pg_catalog.pg_language where lanname = 'c')
"""

_USER_TABLES: Final = """
select c.oid::bigint, c.relname from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid >= 16384 and c.relkind in ('r', 'p', 'v') and c.relpersistence = 'p'
   and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
"""

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class RelationKind:
    """What a relation is, for following it.

    Attributes:
        oid: ``pg_class.oid``.
        is_table: Ordinary or partitioned, and in the WAL.
        has_rights: Whether grants, policies or rules of it may decide what is seen: a table or a
            view, and no index.
        stream_oid: The oid under which its rows arrive: the partition root, or itself.
    """

    oid: int
    is_table: bool
    has_rights: bool
    stream_oid: int


@dataclass(frozen=True, slots=True)
class SlotPosition:
    """Where the database is, and what our slot costs it.

    Attributes:
        database: Where its WAL ends.
        retained_bytes: WAL that is kept for the slot; 0 without a slot.
        safe_wal_bytes: WAL that may still be written before the slot is lost; None without a slot
            or without a limit.
        limit_bytes: ``max_slot_wal_keep_size``, or a lower limit of ours; None without a limit.
    """

    database: Lsn
    retained_bytes: int
    safe_wal_bytes: int | None
    limit_bytes: int | None

    def limited_to(self, bytes_max: int) -> "SlotPosition":
        """Return the same under a limit of ours; 0 for none."""
        return replace(self, limit_bytes=smaller_limit(self.limit_bytes, bytes_max))

    @property
    def is_half_used(self) -> bool:
        """Whether more than half of what may be kept for the slot is kept."""
        return self.limit_bytes is not None and self.retained_bytes * 2 > self.limit_bytes


class AdminDatabase:
    """A small pool with the owner's rights."""

    def __init__(
        self, conninfo: str, *, connections_max: int = limits.ADMIN_CONNECTIONS_MAX
    ) -> None:
        """Prepare; `open` connects."""
        self._pool = make_pool(
            conninfo,
            application_name="heliograph",
            sizes=(1, connections_max),
            wait_s=limits.ADMIN_STATEMENT_TIMEOUT_S,
            configure=_set_timeouts,
        )

    async def open(self) -> None:
        """Connect.

        Raises:
            UnavailableError: If the server does not answer or refuses the login.
        """
        try:
            await self._pool.open(wait=True, timeout=limits.ADMIN_STATEMENT_TIMEOUT_S)
        except PoolTimeout as cause:
            await self._pool.close()
            message = "the database does not answer or refuses the login of DATABASE_URL"
            raise UnavailableError(message) from cause

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection.

        Raises:
            UnavailableError: If there is none, or the database fails while it is in use.
        """
        try:
            async with (
                asyncio.timeout(limits.ADMIN_CONNECTION_TIMEOUT_S),
                self._pool.connection() as connection,
            ):
                yield connection
        except (PoolTimeout, TimeoutError) as cause:
            message = "the database did not answer in time"
            raise UnavailableError(message) from cause
        except psycopg.Error as cause:
            message = f"the database failed: {failure_in_words(cause)}"
            raise UnavailableError(message) from cause

    async def take_position(self) -> tuple[Snapshot, Lsn]:
        """Take a snapshot, and after it the WAL insert position."""
        async with self.connection() as connection:
            cursor = await connection.execute(_POSITION)
            row = await cursor.fetchone()
        if row is None:
            message = "PostgreSQL did not tell its snapshot"
            raise UnavailableError(message)
        return parse_snapshot(row[0]), parse_lsn(row[1])

    async def rights_state(self, question: RightsQuestion) -> RightsState:
        """Read what decides rights, in a snapshot of its own."""
        async with self.connection() as connection:
            return await read_state(await connection.execute(*question.statement()), question)

    async def nudge(self) -> None:
        """Write an empty transactional message: it flushes the WAL before it and moves readers."""
        async with self.connection() as connection:
            await connection.execute(
                "select pg_catalog.pg_logical_emit_message(true, 'heliograph.tick', '')"
            )

    async def slot_position(self, slot_name: str) -> SlotPosition:
        """Return where the WAL ends, and how much of it is kept for the slot."""
        async with self.connection() as connection:
            cursor = await connection.execute(_SLOT, (slot_name,))
            row = await cursor.fetchone()
        if row is None:
            message = "PostgreSQL did not tell its position"
            raise UnavailableError(message)
        position, retained, safe, limit = row
        return SlotPosition(
            database=parse_lsn(position),
            retained_bytes=int(retained or 0),
            safe_wal_bytes=safe,
            limit_bytes=limit if limit >= 0 else None,
        )

    async def relation_kinds(self, oids: Collection[int]) -> list[RelationKind]:
        """Describe relations that were read while judging; unknown oids are left out."""
        async with self.connection() as connection:
            cursor = await connection.execute(_RELATIONS, (list(oids),))
            rows = await cursor.fetchall()
        return [
            RelationKind(
                oid,
                is_table=kind in {"r", "p"} and logged,
                has_rights=kind in {"r", "p", "v", "m", "f"},
                stream_oid=root,
            )
            for oid, kind, logged, root in rows
        ]

    async def followed_tables(self, publications: Iterable[str]) -> set[int]:
        """Return the oids of which the stream carries every change of a row."""
        async with self.connection() as connection:
            cursor = await connection.execute(_FOLLOWED, (list(publications),))
            return {row[0] for row in await cursor.fetchall()}

    async def policy_reads(self, table_oid: int) -> set[int]:
        """Guess from the catalog which tables the policies of a table may read.

        Looks through views, by the words in their source through functions, and at the policies of
        the tables found. It may name too many; what it misses is found by the first judgement that
        reads it.
        """
        found: set[int] = set()
        opened: set[int] = set()
        unread = {table_oid}
        async with self.connection() as connection:
            while unread:
                opened |= unread
                found |= await _named_by_policies(connection, unread)
                unread = found - opened
        kinds = await self.relation_kinds(found) if found else []
        return {kind.stream_oid for kind in kinds if kind.is_table}


async def _set_timeouts(connection: AsyncConnection) -> None:
    # Not as libpq `options`: those would replace what the URL sets there.
    await connection.execute(
        _TIMEOUTS,
        (
            str(int(limits.ADMIN_STATEMENT_TIMEOUT_S * 1000)),
            str(int(limits.ADMIN_LOCK_TIMEOUT_S * 1000)),
        ),
    )


async def _named_by_policies(connection: AsyncConnection, tables: set[int]) -> set[int]:
    cursor = await connection.execute(_POLICY_DEPENDENCIES, {"tables": list(tables)})
    named = await cursor.fetchall()
    relations = {oid for kind, oid in named if kind == "relation"} - tables
    functions = {oid for kind, oid in named if kind == "function"}
    return relations | (await _read_by_functions(connection, functions) if functions else set())


async def _read_by_functions(connection: AsyncConnection, functions: set[int]) -> set[int]:
    """Follow function sources by the words in them, functions calling functions included."""
    sources = {
        oid: (name, set(_WORD.findall(text)))
        for oid, name, text in await (await connection.execute(_FUNCTION_SOURCES)).fetchall()
    }
    tables: dict[str, set[int]] = {}
    for oid, name in await (await connection.execute(_USER_TABLES)).fetchall():
        tables.setdefault(name, set()).add(oid)
    oids_by_name: dict[str, set[int]] = {}
    for oid, (name, _) in sources.items():
        oids_by_name.setdefault(name, set()).add(oid)
    found: set[int] = set()
    open_functions, seen = set(functions), set[int]()
    while open_functions:
        oid = open_functions.pop()
        seen.add(oid)
        for word in sources.get(oid, ("", set[str]()))[1]:
            found |= tables.get(word, set())
            open_functions |= oids_by_name.get(word, set()) - seen
    return found
