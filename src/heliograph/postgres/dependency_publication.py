"""The publication of tables that policies read, which no client can subscribe to.

A policy such as ``exists (select from members where …)`` depends on another table; when its rows
change, so do the rights of some subscriber. The server follows such tables through a publication
of its own. Which tables may join it: visibility.md §5 (Dependencies).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from heliograph import limits
from heliograph.config import ATTACHED_PUBLICATION, SOURCE_PUBLICATION
from heliograph.postgres.publishable_table import TableState, lock_for_publication, read_table
from heliograph.postgres.row_errors import is_row_error

DEPENDENCY_PUBLICATION: Final = "heliograph_dependencies"

#: Publications that one reader may subscribe to together.
OUR_PUBLICATIONS: Final = (
    SOURCE_PUBLICATION,
    ATTACHED_PUBLICATION,
    DEPENDENCY_PUBLICATION,
)

_MEMBERSHIPS: Final = """
select p.pubname as publication, r.prattrs is not null as has_column_list,
       r.prqual is not null as has_row_filter
  from pg_catalog.pg_publication_rel r
  join pg_catalog.pg_publication p on p.oid = r.prpubid
 where r.prrelid = %(oid)s::oid and p.pubname = any(%(publications)s)
"""

_MAY_ALTER: Final = """
select pg_catalog.pg_has_role(current_user, p.pubowner, 'USAGE')
  from pg_catalog.pg_publication p where p.pubname = %s::text
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowResult:
    """Whether a table is followed.

    Attributes:
        table: Qualified name; the oid as text if there is no such table.
        is_followed: Whether its changes arrive from now on.
        was_added: Whether this call added it.
        reason: Why it is not followed; the empty string if it is. PostgreSQL must then judge.
        may_retry: Whether a later attempt may succeed without anybody changing anything.
    """

    table: str
    is_followed: bool
    was_added: bool = False
    reason: str = ""
    may_retry: bool = False


async def follow_dependency(
    connection: AsyncConnection[Any],
    table_oid: int,
    *,
    publications: Sequence[str] = OUR_PUBLICATIONS,
    lock_timeout_s: float = limits.PUBLISH_LOCK_TIMEOUT_S,
) -> FollowResult:
    """Add a table to ``heliograph_dependencies``, waiting for open writers; safe to repeat.

    One attempt: a table that is busy is reported with ``may_retry``. Nothing of the table is
    altered, its replica identity neither.

    Args:
        connection: An autocommit connection of a role that owns table and publication.
        table_oid: The table.
        publications: The publications that the reader subscribes to together; column lists and
            row filters there conflict with following.
        lock_timeout_s: Seconds to wait for open writers, holding up new ones.
    """
    label = str(table_oid)
    try:
        async with asyncio.timeout(limits.MIGRATION_TIMEOUT_S), connection.transaction():
            table = await read_table(connection, table_oid)
            if table is None:
                return _not_followed(label, "it does not exist any more")
            label = table.relation.label
            return await _follow(connection, table, publications, lock_timeout_s)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        reason = f"a writer held it for {lock_timeout_s:g} s"
        return _not_followed(label, reason, may_retry=True)
    except TimeoutError:
        return _not_followed(label, "PostgreSQL does not answer", may_retry=True)
    except psycopg.errors.DuplicateObject:
        # Another join, or another server on this database, has added it while we waited.
        return FollowResult(table=label, is_followed=True)
    except psycopg.Error as error:
        reason = f"SQLSTATE {error.sqlstate}"
        return _not_followed(label, reason, may_retry=not is_row_error(error))


async def _follow(
    connection: AsyncConnection[Any],
    table: TableState,
    publications: Sequence[str],
    lock_timeout_s: float,
) -> FollowResult:
    label = table.relation.label
    async with connection.cursor(row_factory=dict_row) as cursor:
        names = {"oid": table.relation.oid, "publications": list(publications)}
        await cursor.execute(_MEMBERSHIPS, names)
        memberships = await cursor.fetchall()
    if any(row["publication"] == DEPENDENCY_PUBLICATION for row in memberships):
        return FollowResult(table=label, is_followed=True)
    reason = _problem(table, memberships) or await _right_problem(connection, table)
    if reason is not None:
        return _not_followed(label, reason)
    await connection.execute(
        sql.SQL("set local lock_timeout = {}").format(
            sql.Literal(f"{int(lock_timeout_s * 1000)}ms")
        )
    )
    await lock_for_publication(connection, table, None)
    await connection.execute(
        sql.SQL("alter publication {} add table {}").format(
            sql.Identifier(DEPENDENCY_PUBLICATION), table.relation.identifier
        )
    )
    return FollowResult(table=label, is_followed=True, was_added=True)


def _not_followed(label: str, reason: str, *, may_retry: bool = False) -> FollowResult:
    return FollowResult(table=label, is_followed=False, reason=reason, may_retry=may_retry)


def _problem(table: TableState, memberships: Sequence[dict[str, Any]]) -> str | None:
    problem = table.scope_problem or table.storage_problem or table.write_problem
    if problem is not None:
        return problem
    for row in memberships:
        if row["has_column_list"]:
            # PostgreSQL aborts the whole stream: "cannot use different column lists for table".
            return f"publication {row['publication']} has a column list for it"
        if row["has_row_filter"]:
            return (
                f"publication {row['publication']} has a row filter for it, which would be lifted"
            )
    return None


async def _right_problem(connection: AsyncConnection[Any], table: TableState) -> str | None:
    if not table.relation.may_alter:
        return f"it belongs to {table.relation.owner}"
    cursor = await connection.execute(_MAY_ALTER, (DEPENDENCY_PUBLICATION,))
    row = await cursor.fetchone()
    if row is None:
        return f"there is no publication {DEPENDENCY_PUBLICATION}: run `heliograph migrate`"
    return None if row[0] else f"publication {DEPENDENCY_PUBLICATION} belongs to another role"
