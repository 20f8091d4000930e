"""Whether a table can be streamed, and with which replica identity: facts and reasons.

Rules: `visibility.md` §3 (old side, partitions), `replication.md` §5 (setting up), S36 (scope).
Source: https://www.postgresql.org/docs/current/logical-replication-publication.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from heliograph.core.replication.relation import ReplicaIdentity

#: Schemas whose tables hold secrets or the server's own state; never in a publication that clients
#: are served from.
PROTECTED_SCHEMAS: Final = frozenset({"auth", "heliograph", "realtime", "vault", "pgsodium"})

_SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})

_TREE: Final = """
with tree as (
  select %(oid)s::oid as relid
  union
  select t.relid from pg_catalog.pg_partition_tree(%(oid)s::oid::regclass) t where t.isleaf
)
select c.oid::bigint as oid, n.nspname as schema, c.relname as name, c.relkind::text as kind,
       pg_catalog.format('%%I.%%I', n.nspname, c.relname) as label,
       c.relpersistence::text as persistence, c.relispartition as is_partition,
       c.relreplident::text as identity, c.relrowsecurity as has_row_security,
       pg_catalog.pg_get_userbyid(c.relowner) as owner,
       pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') as may_alter,
       case when c.relispartition then pg_catalog.pg_partition_root(c.oid)::text end as root,
       not c.relispartition and c.relkind <> 'p' and exists (
         select from pg_catalog.pg_inherits i where c.oid in (i.inhrelid, i.inhparent)
       ) as inherits,
       coalesce((select array_agg(a.attname order by a.attnum)
                   from pg_catalog.pg_index i
                   join pg_catalog.pg_attribute a
                     on a.attrelid = c.oid and a.attnum = any(i.indkey::int2[])
                  where i.indrelid = c.oid and i.indisprimary), '{}') as primary_key,
       exists (select from pg_catalog.pg_index i
                where i.indrelid = c.oid and i.indisprimary and not i.indimmediate)
         as has_deferrable_key,
       coalesce((select array_agg(a.attname order by a.attnum)
                   from pg_catalog.pg_index i
                   join pg_catalog.pg_attribute a
                     on a.attrelid = c.oid and a.attnum = any(i.indkey::int2[])
                  where i.indrelid = c.oid and i.indisreplident), '{}') as identity_key,
       coalesce((select array_agg(a.attname order by a.attnum)
                   from pg_catalog.pg_attribute a
                  where a.attrelid = c.oid and a.attgenerated = 's' and not a.attisdropped), '{}')
         as stored_columns,
       coalesce((select array_agg(a.attname order by a.attnum)
                   from pg_catalog.pg_attribute a
                  where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped), '{}')
         as virtual_columns
  from tree
  join pg_catalog.pg_class c on c.oid = tree.relid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by c.oid = %(oid)s::oid desc, c.oid
"""

#: parse_ident raises on what is no identifier, so it is asked only about what surely is one.
_PARSE_NAME: Final = r"""
select case when %(name)s::text ~
    '^([[:alpha:]_][[:alnum:]_$]*|"([^"]|"")+")(\.([[:alpha:]_][[:alnum:]_$]*|"([^"]|"")+"))?$'
  then pg_catalog.parse_ident(%(name)s::text) end
"""

_KIND_REASONS: Final = {
    "v": "it is a view, and changes are read from tables: publish the tables that it reads",
    "m": "it is a materialized view, and changes are read from tables",
    "f": "it is a foreign table: its changes are in the log of another server",
    "S": "it is a sequence, and sequences are not replicated",
    "i": "it is an index",
    "I": "it is an index",
    "c": "it is a composite type",
    "t": "it is a TOAST table",
}

_PERSISTENCE_REASONS: Final = {
    "u": "it is unlogged, and its changes are in no log: ALTER TABLE … SET LOGGED",
    "t": "it is temporary, and its changes are in no log",
}


@dataclass(frozen=True, slots=True)
class RelationState:
    """One relation of the catalog, or one leaf partition of it.

    Attributes:
        oid: Of the relation.
        schema: Its schema's name, unquoted.
        name: Its name, unquoted.
        label: The qualified name for people, quoted where SQL needs it: ``public.orders``.
        kind: ``pg_class.relkind``.
        persistence: ``pg_class.relpersistence``.
        is_partition: Whether it is a partition of another table.
        root: For a partition the topmost table, quoted for people; else None.
        inherits: Whether it has non-partition inheritance, up or down.
        identity: Its replica identity.
        primary_key: Columns of the primary key; empty without one.
        has_deferrable_key: Whether the primary key is deferrable: then it is no replica identity.
        identity_key: Columns of the REPLICA IDENTITY USING INDEX; empty without one.
        stored_columns: Generated columns that are stored; published only on demand, from
            PostgreSQL 18 on.
        virtual_columns: Generated columns that are not stored, and so never in the WAL.
        has_row_security: Whether row level security is enabled.
        owner: Name of the owning role.
        may_alter: Whether the connected role has the owner's rights.
    """

    oid: int
    schema: str
    name: str
    label: str
    kind: str
    persistence: str
    is_partition: bool
    root: str | None
    inherits: bool
    identity: ReplicaIdentity
    primary_key: tuple[str, ...]
    has_deferrable_key: bool
    identity_key: tuple[str, ...]
    stored_columns: tuple[str, ...]
    virtual_columns: tuple[str, ...]
    has_row_security: bool
    owner: str
    may_alter: bool

    @property
    def identifier(self) -> sql.Identifier:
        """The qualified name for SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def write_problem(self) -> str | None:
        """Why PostgreSQL would refuse every UPDATE and DELETE once it is published; None if not.

        Source: ``CheckCmdReplicaIdentity`` in execReplication.c, tried with PostgreSQL 15 to 18.
        """
        reason = self._missing_identity
        if reason is None and self.identity is ReplicaIdentity.FULL and self.virtual_columns:
            reason = (
                f"has generated columns that are not stored ({', '.join(self.virtual_columns)}), "
                "and its replica identity is FULL, which would contain them"
            )
        if reason is None:
            return None
        return f"{self.label} {reason}: UPDATE and DELETE of the application would fail"

    @property
    def _missing_identity(self) -> str | None:
        match self.identity:
            case ReplicaIdentity.FULL:
                return None
            case ReplicaIdentity.NOTHING:
                return "has REPLICA IDENTITY NOTHING"
            case ReplicaIdentity.DEFAULT:
                if not self.primary_key:
                    return "has no primary key, and its replica identity is DEFAULT"
                if self.has_deferrable_key:
                    return "has a deferrable primary key, which is no replica identity"
                return None
            case ReplicaIdentity.INDEX:
                return None if self.identity_key else "has lost the index of its replica identity"

    @property
    def identity_problem(self) -> str | None:
        """Why UPDATE or DELETE could not be streamed with this replica identity; None if fine."""
        if self.write_problem is not None or self.identity is not ReplicaIdentity.INDEX:
            return self.write_problem
        missing = [name for name in self.primary_key if name not in self.identity_key]
        if not missing:
            return None
        key = ", ".join(self.identity_key)
        return (
            f"{self.label} has REPLICA IDENTITY USING INDEX on ({key}), which does not "
            f"cover the primary key column {missing[0]}: deleted rows could not be named"
        )


@dataclass(frozen=True, slots=True)
class TableState:
    """A table with its leaf partitions.

    Attributes:
        relation: The table itself.
        leaves: Its leaf partitions by oid; empty if it is not partitioned.
    """

    relation: RelationState
    leaves: tuple[RelationState, ...]

    @property
    def writers(self) -> tuple[RelationState, ...]:
        """The relations whose replica identity counts: partitioned tables hold no rows."""
        return self.leaves if self.relation.kind == "p" else (self.relation,)

    @property
    def storage_problem(self) -> str | None:
        """Why its changes can not be in a publication at all; None if they can."""
        for relation in (self.relation, *self.leaves):
            reason = _KIND_REASONS.get(relation.kind) or _PERSISTENCE_REASONS.get(
                relation.persistence
            )
            if reason is not None:
                prefix = "" if relation is self.relation else f"partition {relation.label}: "
                return prefix + reason
        if self.relation.is_partition:
            return f"it is a partition: publish {self.relation.root}, whose policies judge its rows"
        if self.relation.inherits:
            return (
                "it has inheritance that is not partitioning: rows of one table would be judged "
                "by the policies of another"
            )
        return None

    @property
    def scope_problem(self) -> str | None:
        """Why its schema is not for clients; None if it is."""
        schema = self.relation.schema
        if schema in _SYSTEM_SCHEMAS or schema.startswith(("pg_temp", "pg_toast")):
            return f"schema {schema} belongs to PostgreSQL"
        if schema in PROTECTED_SCHEMAS:
            return f"schema {schema} holds credentials or the server's own state"
        return None

    @property
    def key_problem(self) -> str | None:
        """Why clients could not tell its rows apart; None if they can."""
        if self.relation.primary_key:
            return None
        return (
            "it has no primary key: clients could not tell which row was changed or deleted; "
            f"ALTER TABLE {self.relation.label} ADD PRIMARY KEY (…)"
        )

    @property
    def owner_problem(self) -> str | None:
        """Why the connected role can not add it to a publication; None if it can."""
        if self.relation.may_alter:
            return None
        owner = self.relation.owner
        return (
            f"it belongs to {owner}, and who publishes must own table and publication: run this as "
            f"a superuser, or GRANT {owner} TO the login of DATABASE_URL first"
        )

    @property
    def identity_problem(self) -> str | None:
        """The first identity problem of the relations that are written."""
        return next(filter(None, (relation.identity_problem for relation in self.writers)), None)

    @property
    def write_problem(self) -> str | None:
        """The first one that would keep the application from writing."""
        return next(filter(None, (relation.write_problem for relation in self.writers)), None)


async def read_table(connection: AsyncConnection[Any], oid: int) -> TableState | None:
    """Read a relation and its leaf partitions from the catalog; None if there is none.

    Args:
        connection: In any transaction state; only reads.
        oid: Of the relation.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_TREE, {"oid": oid})
        rows = await cursor.fetchall()
    if not rows:
        return None
    relations = [_relation_of(row) for row in rows]
    return TableState(relations[0], tuple(relations[1:]))


async def find_table(connection: AsyncConnection[Any], name: str) -> int | None:
    """Resolve a name that a person typed to an oid; None if no relation has it.

    ``schema.table`` and ``table`` (then schema ``public``) are first compared letter by letter,
    then read as SQL would: unquoted parts in lower case, quoted parts as they are.
    """
    if "\0" in name:
        return None
    for schema, table in await _candidates(connection, name):
        cursor = await connection.execute(
            "select c.oid::bigint from pg_catalog.pg_class c"
            " join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = %s::text and c.relname = %s::text",
            (schema, table),
        )
        row = await cursor.fetchone()
        if row is not None:
            return int(row[0])
    return None


async def lock_for_publication(
    connection: AsyncConnection[Any], table: TableState, identity: ReplicaIdentity | None
) -> None:
    """Wait until no transaction that wrote to the table is open, and keep writers out.

    Without this step the rows that an open transaction wrote before ALTER PUBLICATION are lost
    (measured, `replication.md` §5). Setting the replica identity waits by itself.

    Args:
        connection: In a transaction with a lock timeout; the locks last until its end.
        table: As read from the catalog.
        identity: FULL or DEFAULT to set where it is another one; None to leave all as they are.
    """
    words: dict[ReplicaIdentity, LiteralString] = {
        ReplicaIdentity.FULL: "full",
        ReplicaIdentity.DEFAULT: "default",
    }
    for relation in (table.relation, *table.leaves):
        if identity is not None and relation.identity is not identity:
            await connection.execute(
                sql.SQL("alter table only {} replica identity {}").format(
                    relation.identifier, sql.SQL(words[identity])
                )
            )
    # Without ONLY it takes the partitions too; it also catches one that appeared meanwhile.
    await connection.execute(
        sql.SQL("lock table {} in share row exclusive mode").format(table.relation.identifier)
    )


async def _candidates(connection: AsyncConnection[Any], name: str) -> Sequence[tuple[str, str]]:
    schema, dot, table = name.partition(".")
    found = [(schema, table), ("public", name)] if dot else [("public", name)]
    cursor = await connection.execute(_PARSE_NAME, {"name": name})
    row = await cursor.fetchone()
    parts: list[str] = row[0] if row is not None and row[0] is not None else []
    match parts:
        case [only]:
            found.append(("public", only))
        case [first, second]:
            found.append((first, second))
        case _:
            pass
    return found


def _relation_of(row: dict[str, Any]) -> RelationState:
    return RelationState(
        oid=row["oid"],
        schema=row["schema"],
        name=row["name"],
        label=row["label"],
        kind=row["kind"],
        persistence=row["persistence"],
        is_partition=row["is_partition"],
        root=row["root"],
        inherits=row["inherits"],
        identity=ReplicaIdentity(row["identity"]),
        primary_key=tuple(row["primary_key"]),
        has_deferrable_key=row["has_deferrable_key"],
        identity_key=tuple(row["identity_key"]),
        stored_columns=tuple(row["stored_columns"]),
        virtual_columns=tuple(row["virtual_columns"]),
        has_row_security=row["has_row_security"],
        owner=row["owner"],
        may_alter=row["may_alter"],
    )
