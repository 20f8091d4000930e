"""Which open transactions may have written to some tables.

Whoever writes to a table holds a lock on it until its transaction has ended, a prepared one too;
PostgreSQL lets it go only when everybody can see what was committed, behind the wait for a
synchronous standby.
Source: https://www.postgresql.org/docs/current/view-pg-locks.html
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from psycopg import AsyncConnection

from heliograph.core.replication.snapshot import Snapshot, parse_snapshot

#: A row written through a partition root, or in a partition, is a row of the root. The lock table
#: is read once: a lock that a transaction has in one reading may be gone in the next.
_WRITERS: Final = """
with recursive parts(root, oid) as (
  select named.oid, named.oid from unnest(%s::oid[]) as named(oid)
  union
  select p.root, h.inhrelid from parts p join pg_catalog.pg_inherits h on h.inhparent = p.oid
), held as materialized (
  select locktype, database, relation, transactionid, virtualtransaction, mode
    from pg_catalog.pg_locks where granted
)
select distinct p.root::bigint, x.transactionid::text::bigint
  from held w
  join parts p on p.oid = w.relation
  join held x on x.virtualtransaction = w.virtualtransaction
             and x.locktype = 'transactionid' and x.mode = 'ExclusiveLock'
 where w.locktype = 'relation' and w.mode in ('RowExclusiveLock', 'AccessExclusiveLock')
   and w.database = (select oid from pg_catalog.pg_database where datname = current_database())
"""


#: A snapshot's xmax is no more than the last one that has ended: others may be running behind it.
#: The age of an id counts from the one that is given out next.
_NEXT: Final = """
select pg_catalog.pg_current_snapshot()::text,
       (pg_catalog.age('3'::xid)::bigint + 3) & 4294967295
"""


@dataclass(frozen=True, slots=True)
class TableWriters:
    """Who may write; ids are the low 32 bits.

    Attributes:
        next_xid: Given out next: who precedes it began before, be it without having written.
        by_table: By table, if there are any, the ids of transactions, of subtransactions too.
    """

    next_xid: int
    by_table: Mapping[int, Collection[int]]


async def read_next_xid(connection: AsyncConnection) -> tuple[Snapshot, int]:
    """Return a snapshot, and the low 32 bits of the id that was given out next then."""
    cursor = await connection.execute(_NEXT)
    ((snapshot, next_xid),) = await cursor.fetchall()
    return parse_snapshot(snapshot), next_xid


async def read_table_writers(connection: AsyncConnection, tables: Collection[int]) -> TableWriters:
    """Return the transactions that may have written to tables and have not ended.

    Whoever has ended before is visible to each snapshot that is taken after this call.

    Args:
        connection: Any, outside of a transaction.
        tables: Oids; of a partitioned table its partitions count.
    """
    _, next_xid = await read_next_xid(connection)
    cursor = await connection.execute(_WRITERS, (list(tables),))
    found: dict[int, set[int]] = {}
    for table, xid in await cursor.fetchall():
        found.setdefault(table, set()).add(xid)
    return TableWriters(next_xid, found)
