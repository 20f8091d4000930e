"""What the catalog says about tables and about a role's rights on them.

Policies are deparsed with an empty search_path, so that every name in them is qualified.
Sources: https://www.postgresql.org/docs/current/catalog-pg-policy.html,
https://www.postgresql.org/docs/current/functions-info.html
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from heliograph.core.matching.table_description import (
    ColumnDescription,
    TableDescription,
    TableKind,
)
from heliograph.core.matching.table_rights import TableRights, combine_policies
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.postgres.catalog_types import TypeCatalog

if TYPE_CHECKING:
    from collections.abc import Sequence

_TABLE: Final = """
select c.oid::bigint as oid, n.nspname as schema, c.relname as name, c.relkind::text as kind,
       c.relreplident::text as replica_identity, c.relrowsecurity as row_security,
       c.relpersistence = 'u' as is_unlogged, c.relispartition as is_partition,
       c.relkind = 'r' and exists (select from pg_catalog.pg_inherits h where h.inhparent = c.oid)
         as is_inherited,
       case c.relreplident
         when 'd' then exists (select from pg_catalog.pg_index k
                                where k.indrelid = c.oid and k.indisprimary and k.indimmediate)
         when 'i' then exists (select from pg_catalog.pg_index i, pg_catalog.pg_index k
                                where i.indrelid = c.oid and i.indisreplident
                                  and k.indrelid = c.oid and k.indisprimary
                                  and not exists (select unnest(k.indkey::int2[])
                                                  except select unnest(i.indkey::int2[])))
         else true end as identity_has_key,
       p.pubname is not null as is_published,
       case when current_setting('server_version_num')::int >= 180000
              or exists (select from pg_catalog.pg_publication_rel l
                          where l.prpubid = b.oid and l.prrelid = c.oid
                            and l.prattrs is not null)
            then p.attnames end as published_columns, p.rowfilter as row_filter,
       array_remove(array[case when b.pubinsert then 'insert' end,
                          case when b.pubupdate then 'update' end,
                          case when b.pubdelete then 'delete' end,
                          case when b.pubtruncate then 'truncate' end], null) as operations,
       coalesce(b.pubviaroot, false) as via_root,
       pg_catalog.concat_ws('/', b.oid, b.xmin,
         (select concat_ws('.', l.oid, l.xmin) from pg_catalog.pg_publication_rel l
           where l.prpubid = b.oid and l.prrelid = c.oid),
         (select concat_ws('.', s.oid, s.xmin) from pg_catalog.pg_publication_namespace s
           where s.pnpubid = b.oid and s.pnnspid = n.oid)) as publication_version,
       array_remove(array[b.xmin::text::bigint,
         (select l.xmin::text::bigint from pg_catalog.pg_publication_rel l
           where l.prpubid = b.oid and l.prrelid = c.oid),
         (select s.xmin::text::bigint from pg_catalog.pg_publication_namespace s
           where s.pnpubid = b.oid and s.pnnspid = n.oid)], null) as published_by,
       coalesce((select array_agg(a.attname order by k.place)
                   from pg_catalog.pg_index i
                   cross join lateral unnest(i.indkey::int2[]) with ordinality as k(attnum, place)
                   join pg_catalog.pg_attribute a
                     on a.attrelid = c.oid and a.attnum = k.attnum
                  where i.indrelid = c.oid and i.indisprimary), '{}') as primary_key
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_publication b on b.pubname = %(publication)s
  left join pg_catalog.pg_publication_tables p
    on p.pubname = %(publication)s and p.schemaname = n.nspname and p.tablename = c.relname
 where c.oid = %(oid)s::oid
"""

_COLUMNS: Final = """
select a.attname as name, a.attnum::int as attnum, a.atttypid::bigint as type_oid,
       a.atttypmod as type_modifier, a.attgenerated <> '' as is_generated,
       coalesce(co.collisdeterministic, true) as collation_is_deterministic
  from pg_catalog.pg_attribute a
  left join pg_catalog.pg_collation co on co.oid = a.attcollation
 where a.attrelid = %s::oid and a.attnum > 0 and not a.attisdropped
 order by a.attnum
"""

_RIGHTS: Final = """
select r.oid::bigint as role_oid, r.rolsuper or r.rolbypassrls as bypasses,
       pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE') as may_use_schema,
       c.relrowsecurity as row_security,
       c.relrowsecurity and not (r.rolsuper or r.rolbypassrls)
         and (c.relforcerowsecurity or not pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE'))
         as policies_apply,
       coalesce((select array_agg(a.attname)
                   from pg_catalog.pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                    and pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')),
                '{}') as selectable
  from pg_catalog.pg_class c, pg_catalog.pg_roles r
 where c.oid = %(oid)s::oid and r.rolname = %(role)s
"""

_POLICIES: Final = """
select p.polpermissive as permissive,
       coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'true') as expression,
       coalesce((select array_agg(distinct a.attname)
                   from pg_catalog.pg_depend d
                   join pg_catalog.pg_attribute a
                     on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                  where d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
                    and d.refclassid = 'pg_catalog.pg_class'::regclass
                    and d.refobjid = p.polrelid and d.refobjsubid > 0), '{}') as columns,
       exists (select from pg_catalog.pg_depend d
                 join pg_catalog.pg_proc f on f.oid = d.refobjid
                 join pg_catalog.pg_namespace n on n.oid = f.pronamespace
                where d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
                  and d.refclassid = 'pg_catalog.pg_proc'::regclass
                  and n.nspname <> 'pg_catalog'
                  and not (n.nspname = 'auth' and f.pronargs = 0
                           and f.proname in ('uid', 'jwt', 'role', 'email'))) as calls_functions
  from pg_catalog.pg_policy p
 where p.polrelid = %(oid)s::oid and p.polcmd in ('*', 'r')
   and exists (select from unnest(p.polroles) as g(role_oid)
                where g.role_oid = 0
                   or pg_catalog.pg_has_role(%(role)s::name, g.role_oid, 'USAGE'))
 order by p.polname
"""

#: Changes whenever rights may have changed: policies, grants, ownership, roles, functions,
#: columns, publications. `xmin` of a catalog row changes with every update of it.
RIGHTS_FINGERPRINT: Final = """
select pg_catalog.concat_ws('.',
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, '/', xmin)))
     from pg_catalog.pg_policy),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(c.oid, c.relacl::text, c.relowner,
            c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relnatts, c.relname)))
     from pg_catalog.pg_class c where c.oid >= 16384 and c.relkind in ('r', 'p', 'v', 'm')
      and c.relpersistence <> 't'),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(attrelid, '/', attnum, attacl::text)))
     from pg_catalog.pg_attribute where attacl is not null and attrelid >= 16384),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(roleid, '/', member, '/', xmin)))
     from pg_catalog.pg_auth_members),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, rolname, rolsuper, rolbypassrls,
            rolinherit))) from pg_catalog.pg_roles),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, '/', xmin)))
     from pg_catalog.pg_proc where oid >= 16384),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, nspacl::text)))
     from pg_catalog.pg_namespace where oid >= 16384 or nspname = 'public'),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, '/', xmin)))
     from pg_catalog.pg_publication_rel),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, '/', xmin)))
     from pg_catalog.pg_publication_namespace),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(h.inhrelid, '/', h.inhparent)))
     from pg_catalog.pg_inherits h join pg_catalog.pg_class p on p.oid = h.inhparent
    where p.relkind = 'r'),
  (select pg_catalog.sum(pg_catalog.hashtext(concat(oid, '/', xmin)))
     from pg_catalog.pg_publication))
"""

_WHOLE_ROW: Final = re.compile(r"\.\*")
_SUB_SELECT_FROM: Final = re.compile(r"\bFROM\b")


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of the publication.

    Attributes:
        oid: ``pg_class.oid``.
        schema: Schema name.
        name: Table name.
    """

    oid: int
    schema: str
    name: str


class Catalog:
    """Reads the catalog over a connection that the caller lends; keeps a cache of types."""

    def __init__(self, publication: str) -> None:
        """Remember which publication counts.

        Args:
            publication: Name of the publication that clients may subscribe to.
        """
        self._publication = publication
        self._types = TypeCatalog()

    async def published_tables(self, connection: AsyncConnection) -> list[PublishedTable]:
        """List the publication's tables (roots, where it publishes via the root)."""
        cursor = await connection.execute(
            """select c.oid::bigint, p.schemaname, p.tablename
                 from pg_catalog.pg_publication_tables p
                 join pg_catalog.pg_namespace n on n.nspname = p.schemaname
                 join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
                where p.pubname = %s order by 2, 3""",
            (self._publication,),
        )
        return [PublishedTable(*row) for row in await cursor.fetchall()]

    async def describe(self, connection: AsyncConnection, oid: int) -> TableDescription | None:
        """Describe a table as one snapshot shows it; None when there is none of that oid.

        Args:
            connection: Outside of a transaction.
            oid: The table.
        """
        async with connection.transaction():
            # A type that is dropped between two statements would be missed in the second one.
            await connection.execute("set transaction isolation level repeatable read, read only")
            return await self._describe(connection, oid)

    async def _describe(self, connection: AsyncConnection, oid: int) -> TableDescription | None:
        table = await _one(connection, _TABLE, {"oid": oid, "publication": self._publication})
        if table is None:
            return None
        columns = await _all(connection, _COLUMNS, (oid,))
        types = await self._types.describe(connection, [row["type_oid"] for row in columns])
        published: Sequence[str] | None = table["published_columns"]
        described = tuple(
            ColumnDescription(
                name=row["name"],
                attnum=row["attnum"],
                type=types[row["type_oid"]],
                type_modifier=row["type_modifier"],
                collation_is_deterministic=row["collation_is_deterministic"],
                is_generated=row["is_generated"],
            )
            for row in columns
        )
        return TableDescription(
            oid=oid,
            schema=table["schema"],
            name=table["name"],
            kind=TableKind(table["kind"]),
            columns=described,
            primary_key=tuple(table["primary_key"]),
            replica_identity=ReplicaIdentity(table["replica_identity"]),
            is_published=table["is_published"],
            published_columns=None if published is None else frozenset(published),
            row_filter=table["row_filter"],
            operations=frozenset(table["operations"]),
            row_security=table["row_security"],
            is_unlogged=table["is_unlogged"],
            is_partition=table["is_partition"],
            is_inherited=table["is_inherited"],
            identity_has_key=table["identity_has_key"],
            via_root=table["via_root"],
            publication_version=table["publication_version"],
            published_by=tuple(table["published_by"]),
        )

    async def rights(self, connection: AsyncConnection, oid: int, role: str) -> TableRights | None:
        """Read a role's rights on a table; None when the table or the role does not exist."""
        found = await _one(connection, _RIGHTS, {"oid": oid, "role": role})
        if found is None:
            return None
        rows: list[DictRow] = []
        if found["policies_apply"]:
            async with connection.transaction():
                await connection.execute("select set_config('search_path', '', true)")
                rows = await _all(connection, _POLICIES, {"oid": oid, "role": role})
        policy = None
        if found["policies_apply"]:
            policy = combine_policies(
                [row["expression"] for row in rows if row["permissive"]],
                [row["expression"] for row in rows if not row["permissive"]],
            )
        text = policy or ""
        whole = _WHOLE_ROW.search(text) is not None
        columns = frozenset[str]().union(*(row["columns"] for row in rows))
        return TableRights(
            role=role,
            role_oid=found["role_oid"],
            may_use_schema=found["may_use_schema"],
            selectable=frozenset(found["selectable"]),
            bypasses=found["bypasses"],
            policies_apply=found["policies_apply"],
            policy=policy,
            policy_columns=None if whole else columns,
            reads_tables=any(row["calls_functions"] for row in rows)
            or _SUB_SELECT_FROM.search(text) is not None,
        )

    def forget_types(self) -> None:
        """Drop the cached types, because some definition changed."""
        self._types = TypeCatalog()


async def rights_fingerprint(connection: AsyncConnection) -> str:
    """Return a text that changes whenever anybody's rights may have changed."""
    cursor = await connection.execute(RIGHTS_FINGERPRINT)
    row = await cursor.fetchone()
    return str(row[0]) if row is not None else ""


async def _one(connection: AsyncConnection, query: str, parameters: Any) -> DictRow | None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), parameters)
        return await cursor.fetchone()


async def _all(connection: AsyncConnection, query: str, parameters: Any) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), parameters)
        return await cursor.fetchall()
