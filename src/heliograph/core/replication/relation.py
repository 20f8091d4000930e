"""The description of a table that pgoutput sends before its first row and after each change.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html (Relation)
"""

from dataclasses import dataclass
from enum import Enum


class ReplicaIdentity(Enum):
    """What PostgreSQL writes of the old row of an UPDATE or DELETE."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """One published column.

    Attributes:
        name: Column name, unquoted.
        type_oid: ``pg_type.oid``.
        type_modifier: ``pg_attribute.atttypmod``; -1 means none.
        is_key: Whether the column is part of the replica identity (with FULL: every column).
    """

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """One version of a published table, as the WAL stream describes it.

    Attributes:
        oid: ``pg_class.oid``.
        schema: Schema name, unquoted (an empty string on the wire means ``pg_catalog``).
        name: Table name, unquoted.
        replica_identity: What old rows carry.
        columns: Published columns in attribute order; dropped ones are absent, and so are
            generated ones before PostgreSQL 18 and those left out of a column list.
        is_partial: Whether some partitions send less of old rows than the identity promises (see
            `partition_leaves`); then ``is_key`` marks what all of them send.
    """

    oid: int
    schema: str
    name: str
    replica_identity: ReplicaIdentity
    columns: tuple[RelationColumn, ...]
    is_partial: bool = False
