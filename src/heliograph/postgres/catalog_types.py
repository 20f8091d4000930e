"""Types of columns, with the types they are made of."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from heliograph.core.matching.table_description import (
    CompositeAttribute,
    TypeDescription,
    TypeKind,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES: Final = b"""
select t.oid::bigint as oid, n.nspname as schema, t.typname as name,
       pg_catalog.format_type(t.oid, null) as display_name,
       case when t.typcategory = 'A' and t.typelem <> 0 and t.typtype = 'b'
            then 'a' else t.typtype::text end as kind,
       nullif(t.typbasetype, 0)::bigint as base_oid,
       case when t.typcategory = 'A' then nullif(t.typelem, 0)::bigint end as element_oid,
       (select e.typdelim::text from pg_catalog.pg_type e where e.oid = t.typelem) as delimiter,
       exists (select from pg_catalog.pg_operator o
                where t.oid in (o.oprleft, o.oprright) and t.typtype in ('d', 'e'))
         or exists (select from pg_catalog.pg_opclass k
                     where k.opcintype = t.oid and t.typtype in ('d', 'e')) as has_own_operators,
       coalesce((select pg_catalog.jsonb_agg(
                          pg_catalog.jsonb_build_array(a.attname, a.atttypid::bigint)
                          order by a.attnum)
                   from pg_catalog.pg_attribute a
                  where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0
                    and not a.attisdropped), '[]') as attributes
  from pg_catalog.pg_type t
  join pg_catalog.pg_namespace n on n.oid = t.typnamespace
 where t.oid = any(%s::oid[])
"""


class TypeCatalog:
    """Reads type definitions and keeps them; types do not change in place."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._rows: dict[int, DictRow] = {}
        self._described: dict[int, TypeDescription] = {}

    async def describe(
        self, connection: AsyncConnection, oids: Iterable[int]
    ) -> Mapping[int, TypeDescription]:
        """Describe types and everything below them.

        Args:
            connection: In a transaction of one snapshot, the one that the oids were read in.
            oids: The types.

        Returns:
            All types known so far by oid, at least those asked for.
        """
        # Kept when it is complete: no type without the parts that it names.
        known = dict(self._rows)
        wanted = set(oids) - known.keys()
        while wanted:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(_TYPES, (sorted(wanted),))
                rows = await cursor.fetchall()
            known.update({row["oid"]: row for row in rows})
            wanted = {part for row in rows for part in _parts(row)} - known.keys()
        self._rows = known
        for oid in self._rows:
            self._build(oid)
        return self._described

    def _build(self, oid: int) -> TypeDescription:
        known = self._described.get(oid)
        if known is not None:
            return known
        row = self._rows[oid]
        attributes: Sequence[Sequence[Any]] = row["attributes"]
        described = TypeDescription(
            oid=oid,
            schema=row["schema"],
            name=row["name"],
            display_name=row["display_name"],
            kind=TypeKind(row["kind"]),
            base=None if row["base_oid"] is None else self._build(row["base_oid"]),
            element=None if row["element_oid"] is None else self._build(row["element_oid"]),
            element_delimiter=row["delimiter"] or ",",
            attributes=tuple(
                CompositeAttribute(name, self._build(part)) for name, part in attributes
            ),
            has_own_operators=row["has_own_operators"],
        )
        self._described[oid] = described
        return described


def _parts(row: DictRow) -> list[int]:
    parts: list[int | None] = [row["base_oid"], row["element_oid"]]
    parts.extend(part for _, part in row["attributes"])
    return [part for part in parts if part is not None]
