"""Copy the table list of a Supabase project's publication into ours, one table at a time.

Nothing of the project is altered: no replica identity, no publication but ours. A column list and
a row filter are taken over, because leaving them out would publish more than the project does.
"""

from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from heliograph.config import ATTACHED_PUBLICATION, SOURCE_PUBLICATION
from heliograph.errors import PublicationRefusedError
from heliograph.postgres.publishable_table import TableState, lock_for_publication, read_table

#: A project may publish leaves of a partitioned table that it lists by its root; ours publishes by
#: the root. Leaves that it lists one by one stay leaves, and are refused.
_TABLES: Final = """
select distinct on (c.oid) c.oid::bigint as oid,
       pg_catalog.format('%%I.%%I', n.nspname, c.relname) as label,
       (select array_agg(a.attname order by a.attnum) from pg_catalog.pg_attribute a
         where a.attrelid = c.oid and a.attnum = any(r.prattrs::int2[])) as columns,
       pg_catalog.pg_get_expr(r.prqual, r.prrelid) as row_filter
  from pg_catalog.pg_publication_tables t
  join pg_catalog.pg_publication p on p.pubname = t.pubname
  join pg_catalog.pg_namespace tn on tn.nspname = t.schemaname
  join pg_catalog.pg_class tc on tc.relnamespace = tn.oid and tc.relname = t.tablename
  left join pg_catalog.pg_publication_rel r
    on r.prpubid = p.oid
   and (r.prrelid = tc.oid
        or tc.relispartition and r.prrelid = pg_catalog.pg_partition_root(tc.oid))
  join pg_catalog.pg_class c on c.oid = coalesce(r.prrelid, tc.oid)
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where t.pubname = %(source)s and not p.puballtables
   and not exists (
     select from pg_catalog.pg_publication_rel own
       join pg_catalog.pg_publication o on o.oid = own.prpubid
      where o.pubname = %(own)s and own.prrelid = c.oid)
 order by c.oid
"""

_FOR_ALL_TABLES: Final = """
select exists (select from pg_catalog.pg_publication where pubname = %s and puballtables)
"""


async def copy_supabase_realtime(
    connection: AsyncConnection[Any], lock_timeout_s: float
) -> tuple[str, ...]:
    """Add the tables of ``supabase_realtime`` to our publication; return what was left out and why.

    Each table in a transaction of its own, with the lock that waits for open writers. A table
    that can not be had now is reported, not fatal: `heliograph publish` adds it later.

    Args:
        connection: An autocommit connection.
        lock_timeout_s: Seconds that one lock may be waited for.
    """
    notes: list[str] = []
    cursor = await connection.execute(_FOR_ALL_TABLES, (SOURCE_PUBLICATION,))
    row = await cursor.fetchone()
    if row is not None and row[0]:
        notes.append(
            f"{SOURCE_PUBLICATION} is FOR ALL TABLES and was not copied: add the tables that "
            "clients may see with `heliograph publish`"
        )
    async with connection.cursor(row_factory=dict_row) as table_cursor:
        names = {"source": SOURCE_PUBLICATION, "own": ATTACHED_PUBLICATION}
        await table_cursor.execute(_TABLES, names)
        rows = await table_cursor.fetchall()
    for table_row in rows:
        try:
            await _copy_table(connection, table_row, lock_timeout_s)
        except PublicationRefusedError as error:
            notes.append(f"{table_row['label']} was not taken over: {error}")
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            notes.append(
                f"{table_row['label']} was not taken over: a writer held it for "
                f"{lock_timeout_s:g} s; run `heliograph publish {table_row['label']}`"
            )
    return tuple(notes)


async def _copy_table(
    connection: AsyncConnection[Any], row: dict[str, Any], lock_timeout_s: float
) -> None:
    async with connection.transaction():
        await connection.execute(
            sql.SQL("set local lock_timeout = {}").format(
                sql.Literal(f"{int(lock_timeout_s * 1000)}ms")
            )
        )
        table = await read_table(connection, row["oid"])
        if table is None:
            return
        _refuse(table)
        await lock_for_publication(connection, table, None)
        statement = sql.SQL("alter publication {} add table {}").format(
            sql.Identifier(ATTACHED_PUBLICATION), table.relation.identifier
        )
        if row["columns"] is not None:
            columns = sql.SQL(", ").join(sql.Identifier(name) for name in row["columns"])
            statement += sql.SQL(" ({})").format(columns)
        if row["row_filter"] is not None:
            # PostgreSQL's own deparsed expression, from the catalog; it can not be bound.
            row_filter = sql.SQL(row["row_filter"])
            statement += sql.SQL(" where ({})").format(row_filter)
        await connection.execute(statement)


def _refuse(table: TableState) -> None:
    problem = (
        table.scope_problem
        or table.storage_problem
        or table.key_problem
        or table.identity_problem
        or table.owner_problem
    )
    if problem is not None:
        raise PublicationRefusedError(problem)
