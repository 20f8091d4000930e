"""Folding: what a transaction did to each row, seen from before it and after its COMMIT.

A SELECT never sees the versions in between, so nobody may be told of them (`visibility.md` §2).
The rules, for the rows of one table:

1. Messages about the same row form a *lineage*: it is followed from key to key by the key of the
   old tuple. Its ends are the first old version (none if the transaction inserted it) and the
   last new version (none if the transaction deleted it); one without either leaves no trace.
2. A lineage that ends under the key where it began is an UPDATE, one that only ends is an INSERT,
   one that only begins is a DELETE.
3. A lineage that ends under another key stays one UPDATE if nothing else ended under its first key
   and nothing else began under its last key. Otherwise the per-key rule 4 decides, because a
   receiver that applies changes by key, in whatever order, must reach the same rows.
4. What began and what ended under one key make one change of that key: both an UPDATE (delete and
   insert of the same key, two rows that exchange keys), else a DELETE or an INSERT.

So each key occurs in one change only, as old or as new key, and the order of the changes of one
transaction does not matter. Unchanged TOAST is filled along the lineage, never across rows.

While keys are checked at COMMIT only (DEFERRABLE), two rows may hold the same key for a moment. A
whole old tuple then says which one is meant: if it differs from the lineage that stands under the
key, it belongs to a row that the transaction had not touched before.
"""

from collections import defaultdict
from collections.abc import Hashable

from heliograph.core.replication.row_change import ChangeKind, Row, RowChange
from heliograph.core.replication.row_message import (
    RowReader,
    RowVersions,
    fill_unchanged,
    reshape,
)


class _Lineage:
    """One row followed through the transaction; see the rules above."""

    __slots__ = (
        "first_key",
        "key",
        "left_at",
        "new",
        "old",
        "old_is_full",
        "old_relation",
        "old_size",
        "relation",
        "sequence",
        "size",
    )

    def __init__(self, reader: RowReader, row: RowVersions, sequence: int, size: int) -> None:
        self.old = row.old
        self.old_is_full = row.old_is_full
        self.old_relation = reader.relation
        self.first_key: Hashable = None if row.old is None else reader.key_of(row.old)
        self.left_at = sequence
        self.old_size = size if row.old is not None else 0
        self.new: Row | None = None
        self.relation = reader.relation
        self.key: Hashable = None
        self.sequence = sequence
        self.size = 0


class RowFold:
    """Folds the row messages of one table, added in their order.

    Attributes:
        size_bytes: Bytes of the messages whose values are held.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._live: defaultdict[Hashable, list[_Lineage]] = defaultdict(list)
        self._ended: list[_Lineage] = []
        self.size_bytes = 0

    def add(self, reader: RowReader, row: RowVersions, sequence: int, size: int) -> None:
        """Take one message.

        Args:
            reader: What read it; it must have a key.
            row: The message.
            sequence: Its index in the transaction.
            size: Its bytes.
        """
        lineage = None if row.old is None else self._take(reader, row, row.old)
        if lineage is None:
            lineage = _Lineage(reader, row, sequence, size)
            self.size_bytes += lineage.old_size
        new = row.new
        if new is not None and row.has_unchanged and lineage.new is not None:
            new = fill_unchanged(new, reshape(lineage.new, lineage.relation, reader.relation)[0])
        self._follow(lineage, reader, new, sequence, size)

    def _take(self, reader: RowReader, row: RowVersions, old: Row) -> _Lineage | None:
        """Remove and return the lineage that stands where the message's old row is."""
        key = reader.key_of(old)
        standing = self._live.get(key, ())
        for lineage in reversed(standing):
            is_same_version = lineage.relation is reader.relation
            if not row.old_is_full or not is_same_version or lineage.new == old:
                self._live[key].remove(lineage)
                if not self._live[key]:
                    del self._live[key]
                return lineage
        return None

    def _follow(
        self, lineage: _Lineage, reader: RowReader, new: Row | None, sequence: int, size: int
    ) -> None:
        """Move a lineage to its newest version."""
        size = 0 if new is None else size
        self.size_bytes += size - lineage.size
        key = None if new is None else reader.key_of(new)
        if lineage.new is None or lineage.key == lineage.first_key:
            lineage.left_at = sequence
        lineage.new, lineage.key, lineage.size = new, key, size
        lineage.relation, lineage.sequence = reader.relation, sequence
        if new is not None:
            self._live[key].append(lineage)
        elif lineage.old is not None:
            self._ended.append(lineage)

    def changes(self) -> list[RowChange]:
        """Return the folded changes, in order of ``sequence``.

        A key change that had to be split gives two changes that may have the same ``sequence``.
        """
        lineages = [*self._ended]
        for standing in self._live.values():
            lineages += standing
        lineages.sort(key=lambda lineage: lineage.sequence)
        begun = {lineage.first_key for lineage in lineages if lineage.old is not None}
        ended = {lineage.key for lineage in lineages if lineage.new is not None}
        changes: list[RowChange] = []
        begins: defaultdict[Hashable, list[_Lineage]] = defaultdict(list)
        ends: defaultdict[Hashable, list[_Lineage]] = defaultdict(list)
        for lineage in lineages:
            if _is_update(lineage, begun, ended):
                changes.append(_join(lineage, lineage))
                continue
            if lineage.old is not None:
                begins[lineage.first_key].append(lineage)
            if lineage.new is not None:
                ends[lineage.key].append(lineage)
        changes += _changes_by_key(begins, ends)
        changes.sort(key=lambda change: change.sequence)
        return changes


def _is_update(lineage: _Lineage, begun: set[Hashable], ended: set[Hashable]) -> bool:
    """Tell whether rules 2 and 3 make the lineage one UPDATE of its own."""
    if lineage.old is None or lineage.new is None:
        return False
    if lineage.first_key == lineage.key:
        return True
    return lineage.first_key not in ended and lineage.key not in begun


def _changes_by_key(
    begins: dict[Hashable, list[_Lineage]], ends: dict[Hashable, list[_Lineage]]
) -> list[RowChange]:
    """Apply rule 4."""
    changes: list[RowChange] = []
    for key, olds in begins.items():
        news = ends.pop(key, [])
        both = min(len(olds), len(news))
        changes += [_join(old, new) for old, new in zip(olds, news, strict=False)]
        changes += [_delete(old) for old in olds[both:]]
        changes += [_insert(new) for new in news[both:]]
    for news in ends.values():
        changes += [_insert(new) for new in news]
    return changes


def _join(begin: _Lineage, end: _Lineage) -> RowChange:
    """Make the UPDATE from what one lineage began with to what one ended with."""
    is_full = begin.old_is_full
    old = begin.old
    if old is not None and begin.old_relation is not end.relation:
        old, is_whole = reshape(old, begin.old_relation, end.relation)
        is_full = is_full and is_whole
    sequence = end.sequence if begin is end else max(_left_at(begin), end.sequence)
    return RowChange(ChangeKind.UPDATE, end.relation, sequence, end.new, old, is_full)


def _delete(begin: _Lineage) -> RowChange:
    relation, sequence = begin.old_relation, _left_at(begin)
    return RowChange(ChangeKind.DELETE, relation, sequence, None, begin.old, begin.old_is_full)


def _left_at(begin: _Lineage) -> int:
    """Return when the row left its first key, or when it was deleted."""
    return begin.sequence if begin.new is None else begin.left_at


def _insert(end: _Lineage) -> RowChange:
    return RowChange(
        ChangeKind.INSERT, end.relation, end.sequence, end.new, None, old_is_full=False
    )
