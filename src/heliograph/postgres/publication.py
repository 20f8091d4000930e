"""``heliograph publish TABLE``: add a table to the publication without losing a row.

`ALTER PUBLICATION … ADD TABLE` does not wait for open transactions; rows that they wrote before it
are in neither the stream nor a later snapshot. So the table is locked in the same transaction
first (`publishable_table.lock_for_publication`). A waiting lock queues everybody behind it, hence
a short lock timeout and several attempts.

What the server checks at its start is in `publication_check.py`, the tables that policies read in
`dependency_publication.py`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row

from heliograph import limits
from heliograph.config import SOURCE_PUBLICATION
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.errors import PublicationRefusedError, StorageError, UnavailableError
from heliograph.postgres.publishable_table import (
    TableState,
    find_table,
    lock_for_publication,
    read_table,
)

_PUBLISHED: Final = """
select wanted.name, p.oid is not null as publication_exists,
       coalesce(p.puballtables, false) as for_all_tables,
       -- the column is new in PostgreSQL 18
       coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's', false) as publishes_generated,
       -- and with it PostgreSQL refuses to update what it does not publish and should identify by
       coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols' = 'n', false) as refuses_generated,
       coalesce(pg_catalog.pg_has_role(current_user, p.pubowner, 'USAGE'), false) as may_alter,
       exists (select from pg_catalog.pg_publication_tables t
                join pg_catalog.pg_namespace n on n.nspname = t.schemaname
                join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
               where t.pubname = p.pubname and c.oid = %(oid)s::oid) as is_published
  from (select %(publication)s::text as name) wanted
  left join pg_catalog.pg_publication p on p.pubname = wanted.name
"""

_ACCESS: Final = """
select r.rolname as role,
       pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE') as may_use_schema,
       pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT') as may_select,
       exists (select from pg_catalog.pg_policy p
                where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('*', 'r')
                  and (p.polroles = '{0}' or exists (
                    select from unnest(p.polroles) as member(oid)
                     where pg_catalog.pg_has_role(r.oid, member.oid, 'USAGE')))) as has_policy
  from pg_catalog.pg_class c cross join pg_catalog.pg_roles r
 where c.oid = %s::oid and r.rolname in ('anon', 'authenticated')
 order by r.rolname
"""


class IdentityChoice(StrEnum):
    """Which replica identity a published table gets."""

    #: Old rows are complete: leave events, exact DELETE visibility, changed TOAST values.
    FULL = "full"
    #: Old rows are the primary key: less WAL, no leave events.
    DEFAULT = "default"
    #: Whatever the table has.
    KEEP = "keep"


_IDENTITIES: Final = {
    IdentityChoice.FULL: ReplicaIdentity.FULL,
    IdentityChoice.DEFAULT: ReplicaIdentity.DEFAULT,
    IdentityChoice.KEEP: None,
}


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What to publish and how.

    Attributes:
        table: Its name as a person wrote it: see `publishable_table.find_table`.
        jitter: Returns a number from 0 to 1, drawn evenly; spreads the attempts.
        publication: Name of an existing publication.
        identity: Which replica identity the table gets.
        lock_timeout_s: Seconds that one attempt may wait for open writers, holding up new ones.
        attempts_max: Attempts before it gives up.
    """

    table: str
    jitter: Callable[[], float]
    publication: str = SOURCE_PUBLICATION
    identity: IdentityChoice = IdentityChoice.FULL
    lock_timeout_s: float = limits.PUBLISH_LOCK_TIMEOUT_S
    attempts_max: int = limits.PUBLISH_ATTEMPTS_MAX


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What was done, and what clients still miss.

    Attributes:
        table: Qualified name.
        publication: Name of the publication.
        was_published: Whether the table was in it already; then nothing was changed.
        identity: The table's replica identity now.
        notes: Sentences about missing row level security, policies, grants and values.
    """

    table: str
    publication: str
    was_published: bool
    identity: ReplicaIdentity
    notes: tuple[str, ...]


async def publish_table(connection: AsyncConnection[Any], options: PublishOptions) -> PublishReport:
    """Add a table to a publication, waiting for open writers; atomic, safe to repeat.

    Args:
        connection: An autocommit connection of a role that owns the table and the publication.
        options: See `PublishOptions`.

    Raises:
        PublicationRefusedError: If the table does not exist or can not be served; the message
            says why and what to change.
        UnavailableError: If the lock was not to be had in any attempt.
        StorageError: If PostgreSQL refused for another reason.
    """
    oid = await find_table(connection, options.table)
    if oid is None:
        message = f"there is no table {options.table[:130]!r}"
        raise PublicationRefusedError(message)
    for attempt in range(options.attempts_max):
        try:
            async with asyncio.timeout(limits.MIGRATION_TIMEOUT_S):
                return await _publish_once(connection, oid, options)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            # Let those pass who queued up behind our lock before we ask again.
            wait_s = limits.PUBLISH_RETRY_WAIT_S * (attempt + 1) * (0.5 + options.jitter())
            await asyncio.sleep(wait_s)
        except TimeoutError as error:
            message = "PostgreSQL does not answer"
            raise UnavailableError(message) from error
        except psycopg.Error as error:
            message = f"publishing failed ({error.sqlstate}): {error.diag.message_primary}"
            raise StorageError(message) from error
    message = (
        f"{options.table} is in use: transactions that wrote to it stayed open through "
        f"{options.attempts_max} attempts of {options.lock_timeout_s:g} s; see pg_stat_activity"
    )
    raise UnavailableError(message)


async def _publish_once(
    connection: AsyncConnection[Any], oid: int, options: PublishOptions
) -> PublishReport:
    async with connection.transaction():
        await connection.execute(
            sql.SQL("set local lock_timeout = {}").format(
                sql.Literal(f"{int(options.lock_timeout_s * 1000)}ms")
            )
        )
        table = await _read_existing(connection, oid, options)
        publication = await _read_publication(connection, table, options.publication)
        if not publication["is_published"]:
            table = await _add(connection, table, options, publication)
        relation = table.relation
        notes = _stream_notes(table, options, publication)
        return PublishReport(
            table=relation.label,
            publication=options.publication,
            was_published=publication["is_published"],
            identity=table.writers[0].identity if table.writers else relation.identity,
            notes=(*notes, *await access_notes(connection, table)),
        )


async def _add(
    connection: AsyncConnection[Any],
    table: TableState,
    options: PublishOptions,
    publication: DictRow,
) -> TableState:
    _refuse_unservable(table, options)
    await lock_for_publication(connection, table, _IDENTITIES[options.identity])
    # Under the lock nothing moves any more: a key dropped or a partition added while we waited is
    # seen now.
    table = await _read_existing(connection, table.relation.oid, options)
    _refuse_unservable(table, options)
    problem = table.identity_problem or _unpublished_identity(table, publication)
    if problem is not None:
        raise _refused(table, problem)
    await connection.execute(
        sql.SQL("alter publication {} add table {}").format(
            sql.Identifier(options.publication), table.relation.identifier
        )
    )
    return table


async def _read_existing(
    connection: AsyncConnection[Any], oid: int, options: PublishOptions
) -> TableState:
    table = await read_table(connection, oid)
    if table is None:
        message = f"table {options.table[:130]!r} was dropped meanwhile"
        raise PublicationRefusedError(message)
    return table


async def _read_publication(
    connection: AsyncConnection[Any], table: TableState, publication: str
) -> DictRow:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_PUBLISHED, {"oid": table.relation.oid, "publication": publication})
        row = await cursor.fetchone()
    if row is None or not row["publication_exists"]:
        message = f"there is no publication {publication!r}: run `heliograph migrate`"
        raise PublicationRefusedError(message)
    if row["for_all_tables"]:
        message = (
            f"publication {publication!r} is FOR ALL TABLES: it publishes every secret of the "
            "database; the server refuses it. Make one with an explicit list"
        )
        raise PublicationRefusedError(message)
    if table.scope_problem is not None:
        raise _refused(table, table.scope_problem)
    if not row["is_published"] and not row["may_alter"]:
        message = f"publication {publication!r} belongs to another role: run this as its owner"
        raise PublicationRefusedError(message)
    return row


def _refuse_unservable(table: TableState, options: PublishOptions) -> None:
    problem = table.storage_problem or table.key_problem
    problem = problem or table.owner_problem
    if problem is None and options.identity is IdentityChoice.KEEP:
        problem = table.identity_problem
    if problem is not None:
        raise _refused(table, problem)


def _unpublished_identity(table: TableState, publication: DictRow) -> str | None:
    """Return why what a publication does not send would keep the application from writing."""
    if not publication["refuses_generated"]:
        return None
    for relation in table.writers:
        if relation.identity is ReplicaIdentity.FULL and relation.stored_columns:
            return (
                f"{relation.label} has generated columns that publication {publication['name']} "
                "does not send, and its replica identity is FULL, which would contain them: UPDATE "
                "and DELETE of the application would fail"
            )
    return None


def _refused(table: TableState, problem: str) -> PublicationRefusedError:
    return PublicationRefusedError(f"{table.relation.label} can not be published: {problem}")


def _stream_notes(table: TableState, options: PublishOptions, publication: DictRow) -> list[str]:
    label = table.relation.label
    notes: list[str] = []
    if table.identity_problem is not None:
        notes.append(f"{table.identity_problem}; set another replica identity")
    wants_full = options.identity is IdentityChoice.FULL
    if wants_full and any(item.identity is not ReplicaIdentity.FULL for item in table.writers):
        # It was published before; changing it then is not what "already published" means.
        notes.append(
            f"its replica identity is not FULL, so rows that leave a view are not reported: "
            f"ALTER TABLE {label} REPLICA IDENTITY FULL;"
        )
    wanted = _IDENTITIES[options.identity]
    if publication["is_published"] and wanted is ReplicaIdentity.DEFAULT:
        others = {item.identity for item in table.writers} - {wanted}
        notes += [f"replica identity {one.name} was left as it is" for one in others]
    absent = table.relation.virtual_columns
    if not publication["publishes_generated"]:
        absent += table.relation.stored_columns
    if absent:
        notes.append(
            f"generated columns ({', '.join(absent)}) are not in the stream; policies and filters "
            "that need them can not be judged there"
        )
    if table.relation.kind == "p":
        notes.append(
            "partitions that are attached later keep their own replica identity: set it on them too"
        )
    return notes


async def access_notes(connection: AsyncConnection[Any], table: TableState) -> list[str]:
    """Say what keeps ``anon`` and ``authenticated`` from seeing changes of a table."""
    label = table.relation.label
    notes: list[str] = []
    if not table.relation.has_row_security:
        notes.append(
            f"row level security is off: changes are withheld from anon and authenticated unless "
            f"the table is listed in allow_without_rls; ALTER TABLE {label} ENABLE ROW LEVEL "
            "SECURITY;"
        )
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ACCESS, (table.relation.oid,))
        rows = await cursor.fetchall()
    for row in rows:
        role = row["role"]
        if not row["may_use_schema"]:
            schema = table.relation.schema
            notes.append(
                f"{role} may not use schema {schema}: GRANT USAGE ON SCHEMA {schema} TO {role};"
            )
        if not row["may_select"]:
            notes.append(f"{role} may not select from it: GRANT SELECT ON {label} TO {role};")
        if table.relation.has_row_security and not row["has_policy"]:
            notes.append(
                f"no policy lets {role} select rows, so it sees none: CREATE POLICY … TO {role}"
            )
    return notes
