"""Row messages read with their relation: what was before, what is after, under which key.

Absent is unknown, never NULL: columns that a key-only tuple does not carry become
`Unknown.NOT_SENT`, and unchanged TOAST is filled from the old tuple of the same message only.
"""

import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, cast

from heliograph.core.replication.pgoutput import (
    DELETE,
    INSERT,
    KEY_TUPLE,
    NEW_TUPLE,
    OLD_TUPLE,
    UPDATE,
    read_tuple,
)
from heliograph.core.replication.relation import Relation, ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, Row, RowChange, Unknown
from heliograph.errors import RemoteProtocolError
from heliograph.limits import ROW_READERS_MAX

#: Relation oid -> positions of the primary key in ``Relation.columns``, None for the identity's.
Wanted = Mapping[int, tuple[int, ...] | None]


class RowVersions(NamedTuple):
    """One raw row message, decoded.

    Attributes:
        kind: INSERT, UPDATE or DELETE.
        old: None on INSERT; else the whole old row, or the key columns and `Unknown.NOT_SENT`.
        old_is_full: Whether ``old`` is the whole old row.
        new: None on DELETE.
        has_unchanged: Whether ``new`` has a value that is `Unknown.UNCHANGED_TOAST`.
    """

    kind: ChangeKind
    old: Row | None
    old_is_full: bool
    new: Row | None
    has_unchanged: bool


class RowReader:
    """Reads the row messages that follow one relation version.

    Attributes:
        relation: The version.
        has_key: Whether rows can be told apart by a key; without one nothing is folded.
        key_of: Returns the key of a row; equal keys mean the same row. Only if ``has_key``.
    """

    __slots__ = ("_column_count", "_sent", "has_key", "key_of", "relation")

    def __init__(self, relation: Relation, key_positions: tuple[int, ...] | None) -> None:
        """Choose the key.

        Args:
            relation: The version that the rows follow.
            key_positions: The primary key's columns. They count only if every one of them is
                sent with old rows; otherwise, and for None, the replica identity is the key.
        """
        columns = relation.columns
        identity = tuple(number for number, column in enumerate(columns) if column.is_key)
        positions = identity
        if key_positions and set(key_positions) <= set(identity):
            positions = key_positions
        self.relation = relation
        self.has_key = bool(positions)
        self.key_of = _key_getter(positions)
        self._column_count = len(columns)
        self._sent = tuple(column.is_key for column in columns)

    def read(self, payload: bytes, start: int, end: int) -> RowVersions:
        """Decode the message at ``payload[start:end]``.

        Raises:
            RemoteProtocolError: If it is malformed, does not end at ``end``, or has another
                number of columns than the relation.
        """
        try:
            row, position = self._read(payload, start)
        except (IndexError, ValueError, struct.error) as cause:
            message = f"malformed row message of {end - start} bytes: {cause}"
            raise RemoteProtocolError(message) from cause
        if position != end:
            message = f"a row message of {end - start} bytes ends at {position - start}"
            raise RemoteProtocolError(message)
        return row

    def _read(self, payload: bytes, position: int) -> tuple[RowVersions, int]:
        tag = payload[position]
        tuple_kind = payload[position + 5]
        is_full = tuple_kind == OLD_TUPLE
        position += 6
        if tuple_kind == NEW_TUPLE:
            new, position, unchanged = self._read_tuple(payload, position)
            if tag == INSERT:
                return RowVersions(ChangeKind.INSERT, None, is_full, new, unchanged), position
            _expect(tag, UPDATE)
            old = self._key_only(new)
            return RowVersions(ChangeKind.UPDATE, old, is_full, new, unchanged), position
        old, position, unchanged = self._read_tuple(payload, position)
        if is_full and self.relation.is_partial:
            is_full = self._has_more_than_key(old)
        elif not is_full:
            _expect(tuple_kind, KEY_TUPLE)
        if not is_full:
            old = self._key_only(old)
        if tag == DELETE:
            return RowVersions(ChangeKind.DELETE, old, is_full, None, unchanged), position
        _expect(tag, UPDATE)
        _expect(payload[position], NEW_TUPLE)
        new, position, unchanged = self._read_tuple(payload, position + 1)
        if unchanged:
            new = fill_unchanged(new, old)
            unchanged = Unknown.UNCHANGED_TOAST in new
        return RowVersions(ChangeKind.UPDATE, old, is_full, new, unchanged), position

    def _read_tuple(self, payload: bytes, position: int) -> tuple[Row, int, bool]:
        row, position, unchanged = read_tuple(payload, position)
        if len(row) != self._column_count:
            message = f"{len(row)} values for {self._column_count} columns"
            raise ValueError(message)
        return row, position, unchanged

    def _has_more_than_key(self, old: Row) -> bool:
        """Tell whether an old row that is said to be whole is more than the key and NULLs.

        If all else is NULL, it may be that or what a partition with another identity sends.
        """
        if self.relation.replica_identity is not ReplicaIdentity.FULL:
            return False
        return any(
            value is not None and not is_sent
            for value, is_sent in zip(old, self._sent, strict=True)
        )

    def _key_only(self, row: Row) -> Row:
        """Keep what the replica identity sends."""
        return tuple(
            [
                value if is_sent else Unknown.NOT_SENT
                for value, is_sent in zip(row, self._sent, strict=True)
            ]
        )

    def change(self, row: RowVersions, sequence: int) -> RowChange:
        """Return what one message means if no other one of its transaction concerns the row."""
        return RowChange(row.kind, self.relation, sequence, row.new, row.old, row.old_is_full)

    def keys(self, row: RowVersions) -> Sequence[Hashable]:
        """Return the one or two keys that the message touches."""
        key_of = self.key_of
        if row.old is None:
            return () if row.new is None else (key_of(row.new),)
        if row.new is None:
            return (key_of(row.old),)
        old_key, new_key = key_of(row.old), key_of(row.new)
        return (old_key,) if old_key == new_key else (old_key, new_key)


def _key_getter(positions: tuple[int, ...]) -> Callable[[Row], Hashable]:
    if not positions:
        return _no_key
    return cast("Callable[[Row], Hashable]", itemgetter(*positions))


def _no_key(_row: Row) -> Hashable:
    return None


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        message = f"expected {chr(wanted)!r} in a row message, got {found}"
        raise ValueError(message)


def fill_unchanged(new: Row, earlier: Row) -> Row:
    """Replace unchanged TOAST values by those that an earlier version of the same row has."""
    return tuple(
        before if value is Unknown.UNCHANGED_TOAST and before is not Unknown.NOT_SENT else value
        for value, before in zip(new, earlier, strict=True)
    )


def reshape(row: Row, source: Relation, target: Relation) -> tuple[Row, bool]:
    """Carry a row over to another version of its table.

    Returns:
        The row in the order of ``target.columns``, `Unknown.NOT_SENT` where the older version has
        no column of that name and type; and whether every value was found.
    """
    if source is target:
        return row, True
    values = {
        (column.name, column.type_oid): value
        for column, value in zip(source.columns, row, strict=True)
    }
    found = tuple(
        values.get((column.name, column.type_oid), Unknown.NOT_SENT) for column in target.columns
    )
    return found, Unknown.NOT_SENT not in found


def make_readers(relations: Sequence[Relation], wanted: Wanted) -> dict[int, RowReader]:
    """Return a reader for each wanted relation version, by ``id`` of the version.

    The positions of ``wanted`` speak of the last version of each table; earlier versions of the
    same transaction get the columns of the same names.
    """
    last = {relation.oid: relation for relation in relations}
    readers: dict[int, RowReader] = {}
    for relation in relations:
        if relation.oid in wanted:
            positions = wanted[relation.oid]
            if positions is not None and relation is not last[relation.oid]:
                positions = _same_columns(positions, last[relation.oid], relation)
            readers[id(relation)] = _reader(relation, positions)
    return readers


def _reader(relation: Relation, positions: tuple[int, ...] | None) -> RowReader:
    """Return a reader, which is made once for all transactions that follow the version."""
    key = (id(relation), positions)
    found = _READERS.get(key)
    if found is None:
        if len(_READERS) >= ROW_READERS_MAX:
            _READERS.clear()
        found = _READERS[key] = RowReader(relation, positions)
    return found


#: Readers by version and key. Each holds its version, so that the ids stay those of the versions.
#: One for the process: transactions are values that belong to no instance, and the same version and
#: key always make the same reader.
_READERS: Final[dict[tuple[int, tuple[int, ...] | None], RowReader]] = {}


def _same_columns(
    positions: tuple[int, ...], source: Relation, target: Relation
) -> tuple[int, ...] | None:
    """Find columns of another version by name; None if one is missing."""
    by_name = {column.name: number for number, column in enumerate(target.columns)}
    names = [source.columns[number].name for number in positions if number < len(source.columns)]
    found = tuple(by_name[name] for name in names if name in by_name)
    return found if len(found) == len(positions) else None
