"""One row change as subscribers must be told it: first old version, last new version.

Absent is unknown, never NULL (`visibility.md` §3): a value that the WAL did not carry is one of
`Unknown`, and a predicate over it denies.
"""

from enum import Enum

import msgspec

from heliograph.core.replication.relation import Relation


class Unknown(Enum):
    """Why a value is not known."""

    #: A large value that the UPDATE did not touch and that the old tuple does not carry.
    UNCHANGED_TOAST = "unchanged_toast"
    #: The column is not part of what was sent: a key-only old tuple.
    NOT_SENT = "not_sent"


#: PostgreSQL's text form, or None for SQL NULL, or the reason why it is not known.
Value = str | None | Unknown

#: Values in the order of ``Relation.columns``; always of the same length.
Row = tuple[Value, ...]


class ChangeKind(Enum):
    """What happened to the row, seen over the whole transaction."""

    # Members are compared by identity; `Enum` hashes their names, in Python.
    __hash__ = object.__hash__

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class RowChange(msgspec.Struct, frozen=True, eq=False):
    """The effect of one transaction on one row; compared by identity.

    Several versions of one key within a transaction are folded: only what a SELECT could have
    seen before it and after its COMMIT remains (insert + delete of the same key: nothing).

    Attributes:
        kind: INSERT (no old row), UPDATE (both) or DELETE (no new row).
        relation: The table version that the rows follow.
        sequence: Index of the (last) change in its transaction, all tables counted, from 0.
        new: The row after the transaction; None on DELETE. Unchanged TOAST values are filled from
            a FULL old row, otherwise `Unknown.UNCHANGED_TOAST`.
        old: The row before the transaction; None on INSERT. On UPDATE it always has at least the
            key: with FULL the whole row, otherwise the key columns (copied from the new row when
            the key did not change) and `Unknown.NOT_SENT` elsewhere.
        old_is_full: Whether ``old`` is the whole old row (REPLICA IDENTITY FULL).
    """

    kind: ChangeKind
    relation: Relation
    sequence: int
    new: Row | None
    old: Row | None
    old_is_full: bool
