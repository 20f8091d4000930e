"""What the catalog says about a table: columns, types, identity, publication, row security.

The WAL names columns by type oid only; everything that filters and the change's JSON need beyond
that stands here. ``postgres/catalog.py`` fills it; nothing in this module reads a database.
Source: https://www.postgresql.org/docs/current/catalogs.html (pg_class, pg_attribute, pg_type)
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from heliograph.core.replication.relation import ReplicaIdentity

#: The schema of PostgreSQL's own types and operators.
CATALOG_SCHEMA: Final = "pg_catalog"

#: What a publication sends unless it is told otherwise (``publish``).
EVERY_OPERATION: Final = frozenset({"insert", "update", "delete", "truncate"})

#: In a list of tables: every one.
EVERY_TABLE: Final = "*"


class TypeKind(Enum):
    """``pg_type.typtype``, with arrays told apart from other base types."""

    BASE = "b"
    #: A variable-length type with ``typelem`` and ``typcategory`` ``A``.
    ARRAY = "a"
    COMPOSITE = "c"
    DOMAIN = "d"
    ENUM = "e"
    MULTIRANGE = "m"
    PSEUDO = "p"
    RANGE = "r"


class TableKind(Enum):
    """``pg_class.relkind`` of what a subscription may name."""

    TABLE = "r"
    PARTITIONED_TABLE = "p"
    VIEW = "v"
    MATERIALIZED_VIEW = "m"
    FOREIGN_TABLE = "f"


@dataclass(frozen=True, slots=True)
class TypeDescription:
    """One type, with the types it is made of.

    Attributes:
        oid: ``pg_type.oid``.
        schema: Schema name, unquoted. ``schema`` and ``name`` together, quoted, are a type name
            that SQL accepts, without a type modifier.
        name: ``pg_type.typname``, unquoted, for example ``int4``, ``_int4``, ``bpchar``.
        display_name: ``format_type(oid, null)``, for texts that people read: ``integer``.
        kind: What sort of type it is.
        base: The type below a domain (which may be a domain itself); None for other kinds.
        element: The element type of an array; None for other kinds.
        element_delimiter: ``pg_type.typdelim`` of the element type (a comma for all but ``box``).
        attributes: Attributes of a composite type that are not dropped, in order.
        has_own_operators: Whether an operator or operator class is declared for this domain or
            enum itself, so that its values must not be compared by the rules of the type below.
    """

    oid: int
    schema: str
    name: str
    display_name: str
    kind: TypeKind = TypeKind.BASE
    base: "TypeDescription | None" = None
    element: "TypeDescription | None" = None
    element_delimiter: str = ","
    attributes: tuple["CompositeAttribute", ...] = ()
    has_own_operators: bool = False

    @property
    def resolved(self) -> "TypeDescription":
        """The type itself, or what stands below the (nested) domain."""
        described = self
        while described.base is not None:
            described = described.base
        return described

    @property
    def is_builtin(self) -> bool:
        """Whether PostgreSQL itself brings the type, so that its name says what it does."""
        return self.schema == CATALOG_SCHEMA


@dataclass(frozen=True, slots=True)
class CompositeAttribute:
    """One attribute of a composite type.

    Attributes:
        name: Attribute name, unquoted.
        type: Its type.
    """

    name: str
    type: TypeDescription


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """One column that is not dropped.

    Attributes:
        name: Column name, unquoted.
        attnum: ``pg_attribute.attnum``; grows in attribute order, with gaps for dropped columns.
        type: Its type.
        type_modifier: ``pg_attribute.atttypmod``; -1 means none.
        collation_is_deterministic: False only under a collation for which different texts may be
            equal. True for types without collation.
        is_generated: Whether it is a generated column; absent from the WAL before PostgreSQL 18.
    """

    name: str
    attnum: int
    type: TypeDescription
    type_modifier: int = -1
    collation_is_deterministic: bool = True
    is_generated: bool = False

    @property
    def type_oid(self) -> int:
        """``pg_type.oid`` of the declared type."""
        return self.type.oid

    @property
    def type_name(self) -> str:
        """``pg_type.typname`` of the declared type: what the wire calls ``type``."""
        return self.type.name


@dataclass(frozen=True, slots=True)
class TableDescription:
    """One table as the catalog describes it at one moment.

    Attributes:
        oid: ``pg_class.oid``.
        schema: Schema name, unquoted.
        name: Table name, unquoted.
        kind: What sort of relation it is.
        columns: Columns that are not dropped, in attribute order.
        primary_key: Names of the primary key's columns in key order; empty when there is none.
        replica_identity: What the WAL carries of old rows.
        is_published: Whether the publication that we read contains it.
        published_columns: What the publication sends (``pg_publication_tables.attnames`` or its
            column list); None means every column that is not generated.
        row_filter: The publication's ``WHERE`` of this table, as PostgreSQL deparses it.
        operations: What the publication sends: of ``insert``, ``update``, ``delete``, ``truncate``.
        row_security: ``relrowsecurity``.
        is_unlogged: Not written to the WAL, so never streamed.
        is_partition: Whether it is a partition of another table.
        is_inherited: Whether other tables inherit from it without being partitions: SELECT shows
            their rows as its own, the WAL does not.
        identity_has_key: Whether the replica identity carries the primary key; one by an index
            need not.
        via_root: ``publish_via_partition_root`` of the publication.
        publication_version: Another one whenever what the publication sends of it was altered, be
            it for a moment.
        published_by: Low 32 bits of the ids of the transactions that made the publication, and the
            table's place in it, what they are.
    """

    oid: int
    schema: str
    name: str
    kind: TableKind
    columns: tuple[ColumnDescription, ...]
    primary_key: tuple[str, ...]
    replica_identity: ReplicaIdentity
    is_published: bool = True
    published_columns: frozenset[str] | None = None
    row_filter: str | None = None
    operations: frozenset[str] = EVERY_OPERATION
    row_security: bool = False
    is_unlogged: bool = False
    is_partition: bool = False
    is_inherited: bool = False
    identity_has_key: bool = True
    via_root: bool = False
    publication_version: str = ""
    published_by: tuple[int, ...] = ()

    @property
    def name_in_full(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name

    def is_published_like(self, other: "TableDescription") -> bool:
        """Tell whether the publication sent the same columns, rows and operations ever since."""
        return (
            self.is_published,
            self.published_columns,
            self.row_filter,
            self.operations,
            self.publication_version,
        ) == (
            other.is_published,
            other.published_columns,
            other.row_filter,
            other.operations,
            other.publication_version,
        )

    def was_republished(self, other: "TableDescription") -> bool:
        """Tell whether the publication itself was altered, which nobody who writes stands in.

        Other columns change what it sends, too; but nobody writes while they are changed.
        """
        return self.publication_version != other.publication_version

    def is_streamed(self, column: ColumnDescription) -> bool:
        """Tell whether the WAL carries the column's values.

        Without a column list generated columns are absent. With one, what it names is there:
        before PostgreSQL 18 it can not name a generated column.
        """
        if self.published_columns is None:
            return not column.is_generated
        return column.name in self.published_columns

    def column(self, name: str) -> ColumnDescription | None:
        """Return the column of that name, or None; names are compared exactly."""
        for column in self.columns:
            if column.name == name:
                return column
        return None


def is_listed(schema: str, name: str, listed: Collection[str]) -> bool:
    """Tell whether a setting lists a table: as ``schema.name``, ``name`` if public, or ``*``."""
    names = {EVERY_TABLE, f"{schema}.{name}"}
    if schema == "public":
        names.add(name)
    return not names.isdisjoint(listed)
