"""The partitions of a table, and whether rows came or went with one of them.

With ``publish_via_partition_root`` the stream says nothing of a leaf that is truncated, attached or
detached, so the catalog is compared. A leaf is known by its file, which TRUNCATE and every rewrite
replace, and by the row of ``pg_inherits`` that attaches it.

No partition is locked for that: ``pg_partition_tree`` would wait behind each TRUNCATE.
Source: https://www.postgresql.org/docs/current/catalog-pg-inherits.html
"""

from collections.abc import Collection, Mapping
from typing import Final

import psycopg
from psycopg import AsyncConnection

from heliograph import limits
from heliograph.core.replication.lsn import Lsn, parse_lsn

#: By the oid of a leaf: changes with its file and with whatever attaches it to the root.
Leaves = Mapping[int, int]

_LEAVES: Final = """
with recursive tree(root, oid, path) as (
  select q.oid, q.oid, 0::bigint from pg_catalog.unnest(%s::oid[]) as q(oid)
  union all
  select t.root, i.inhrelid,
         pg_catalog.hash_record_extended((t.path, i.inhrelid, i.xmin), 0)
    from tree t join pg_catalog.pg_inherits i on i.inhparent = t.oid and not i.inhdetachpending
)
select t.root::bigint, c.oid::bigint,
       pg_catalog.hash_record_extended((t.path, c.relfilenode), 0)
  from tree t join pg_catalog.pg_class c on c.oid = t.oid
 where c.relkind <> 'p'
"""

#: Whether tables have no row and never lost one by TRUNCATE: theirs is still their first file.
_NEVER_FILLED: Final = """
select coalesce(bool_and(c.relfilenode = c.oid and pg_catalog.pg_relation_size(c.oid) = 0), true)
  from pg_catalog.pg_class c where c.oid = any(%s::oid[])
"""


async def read_leaves(connection: AsyncConnection, roots: Collection[int]) -> Mapping[int, Leaves]:
    """Return the leaves of partitioned tables, by the table's oid.

    Args:
        connection: Any.
        roots: Oids of partitioned tables.
    """
    found: dict[int, dict[int, int]] = {root: {} for root in roots}
    cursor = await connection.execute(_LEAVES, (list(roots),))
    for root, leaf, mark in await cursor.fetchall():
        found[root][leaf] = mark
    return found


async def read_insert_position(connection: AsyncConnection) -> Lsn:
    """Return the WAL insert position: what earlier statements saw committed below it."""
    cursor = await connection.execute("select pg_catalog.pg_current_wal_insert_lsn()::text")
    ((position,),) = await cursor.fetchall()
    return parse_lsn(position)


async def rows_moved(connection: AsyncConnection, known: Leaves, found: Leaves) -> bool:
    """Tell whether rows may have come or gone with a leaf between two readings.

    An empty partition that was made in between, as for the next month, moves none.

    Args:
        connection: Outside of a transaction.
        known: The earlier reading.
        found: The later one.
    """
    if any(found.get(leaf) != mark for leaf, mark in known.items()):
        return True
    new = [leaf for leaf in found if leaf not in known]
    if not new:
        return False
    try:
        async with connection.transaction():
            # The size takes a lock. Somebody who writes does not stand in its way, but TRUNCATE.
            milliseconds = str(int(limits.PARTITION_LOCK_TIMEOUT_S * 1000))
            await connection.execute("select set_config('lock_timeout', %s, true)", (milliseconds,))
            cursor = await connection.execute(_NEVER_FILLED, (new,))
            row = await cursor.fetchone()
    except psycopg.errors.LockNotAvailable:
        return True
    return row is None or not row[0]
