"""What decides rights, as one snapshot shows it: read with every judgement (`visibility.md` §6).

Each catalog row counts with its ``xmin``, which every change of the row replaces by a transaction
id that was never there before. So two equal states mean that nothing changed between the two
snapshots, not even for a moment; roles are the exception, see `RightsQuestion`.

Which relations count is told by the caller, so that the price depends mostly on the tables in use
and not on the size of the catalog, and a table that an application makes for itself concerns
nobody. Functions, and composite types that columns are made of, all count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import psycopg
from psycopg import sql

from heliograph.core.replication.lsn import Lsn, parse_lsn
from heliograph.core.replication.snapshot import Snapshot, parse_snapshot
from heliograph.errors import UnavailableError

#: Memberships and what roles are. The rows of ``pg_authid`` are for superusers only, so its
#: columns count here instead of its ``xmin``.
_ROLES: Final = sql.SQL("""
select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_wal_insert_lsn()::text,
  (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint,
  pg_catalog.concat_ws('.',
  (select pg_catalog.bit_xor(pg_catalog.hash_record_extended((m.roleid, m.member, m.xmin), 0))
     from pg_catalog.pg_auth_members m),
  (select pg_catalog.bit_xor(pg_catalog.hash_record_extended(
            (r.oid, r.rolname, r.rolsuper, r.rolbypassrls, r.rolinherit), 0))
     from pg_catalog.pg_roles r))
""")

_DEFINITIONS: Final = _ROLES + sql.SQL(""", pg_catalog.concat_ws('.',
  (select coalesce(pg_catalog.bit_xor(pg_catalog.hash_record_extended((f.oid, f.xmin), 0)), 0)
     from pg_catalog.pg_proc f where f.oid >= 16384),
  (select coalesce(pg_catalog.bit_xor(pg_catalog.hash_record_extended((n.oid, n.xmin), 0)), 0)
     from pg_catalog.pg_namespace n where n.nspname !~ '^pg_'),
  (select coalesce(pg_catalog.bit_xor(pg_catalog.hash_record_extended((o.oid, o.xmin), 0)), 0)
     from pg_catalog.pg_operator o where o.oid >= 16384),
  (select coalesce(pg_catalog.bit_xor(pg_catalog.hash_record_extended((c.oid, c.xmin), 0)), 0)
     from pg_catalog.pg_cast c where c.oid >= 16384),
  (select coalesce(pg_catalog.bit_xor(pg_catalog.hash_record_extended((d.oid, d.xmin), 0)), 0)
     from pg_catalog.pg_constraint d where d.contypid > 0),
  (select pg_catalog.bit_xor(pg_catalog.hash_record_extended((c.oid, c.xmin,
            (select pg_catalog.bit_xor(pg_catalog.hash_record_extended((a.attnum, a.xmin), 0))
               from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0)), 0))
     from pg_catalog.pg_class c where c.relkind = 'c' and c.oid >= 16384)),
  array(select pg_catalog.hash_record_extended((
      (select c.xmin from pg_catalog.pg_class c where c.oid = q.oid),
      (select pg_catalog.bit_xor(pg_catalog.hash_record_extended((a.attnum, a.xmin), 0))
         from pg_catalog.pg_attribute a where a.attrelid = q.oid and a.attnum > 0),
      (select pg_catalog.bit_xor(pg_catalog.hash_record_extended((p.oid, p.xmin), 0))
         from pg_catalog.pg_policy p where p.polrelid = q.oid),
      (select pg_catalog.bit_xor(pg_catalog.hash_record_extended((w.oid, w.xmin), 0))
         from pg_catalog.pg_rewrite w where w.ev_class = q.oid)), 0)
    from pg_catalog.unnest(%s::oid[]) with ordinality as q(oid, place) order by q.place)
""")

_Cursor = psycopg.AsyncCursor[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class RightsQuestion:
    """How much of the catalog is read.

    Attributes:
        reads_definitions: Whether policies, grants, functions and ownership are read as well; not
            needed where event triggers report them in commit order. Roles and their memberships,
            for which PostgreSQL fires no event trigger, are always read.
        relations: Oids of tables and views whose grants, columns, policies and rules count.
    """

    reads_definitions: bool
    relations: tuple[int, ...] = ()

    def statement(self) -> tuple[sql.SQL | sql.Composed, tuple[object, ...]]:
        """Return the query with its parameters."""
        if not self.reads_definitions:
            return _ROLES, ()
        # As text: a list of numbers has another type for larger ones, and so another plan.
        return _DEFINITIONS, (f"{{{','.join(map(str, self.relations))}}}",)


@dataclass(frozen=True, slots=True)
class RightsState:
    """What one snapshot shows of everybody's rights.

    Attributes:
        snapshot: The snapshot.
        insert_lsn: WAL insert position taken after it: whatever it sees committed below.
        taken_us: When, by PostgreSQL's clock: microseconds since 1970-01-01 UTC.
        general: Changes with roles, memberships, functions, schemas and composite types.
        relations: By oid; changes with grants, owner, row security, columns, policies, rules.
    """

    snapshot: Snapshot
    insert_lsn: Lsn
    taken_us: int
    general: str
    relations: Mapping[int, int] = field(default_factory=dict[int, int])


async def read_state(cursor: _Cursor, question: RightsQuestion) -> RightsState:
    """Read the answer to `RightsQuestion.statement`.

    Raises:
        UnavailableError: If PostgreSQL did not answer.
    """
    row = await cursor.fetchone()
    if row is None:
        message = "PostgreSQL did not tell its snapshot"
        raise UnavailableError(message)
    snapshot, insert_lsn = parse_snapshot(str(row[0])), parse_lsn(str(row[1]))
    taken_us = cast("int", row[2])
    if not question.reads_definitions:
        return RightsState(snapshot, insert_lsn, taken_us, str(row[3]))
    relations = dict(zip(question.relations, cast("list[int]", row[5]), strict=True))
    return RightsState(snapshot, insert_lsn, taken_us, f"{row[3]}/{row[4]}", relations)
