"""Which subscriptions may be interested in a row change, without visiting the others (P7).

Per table the groups are filed under one equality term (the most selective of their filter); a
change looks up the value of its new and of its old row. Groups without such a term are visited
for every change of their table.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

from heliograph.core.replication.relation import Relation
from heliograph.core.replication.row_change import Row, RowChange, Unknown

G = TypeVar("G")


class SubscriptionIndex(Generic[G]):
    """Groups by table and equality key."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        """Start without any group."""
        self._tables: dict[int, _TableIndex[G]] = {}

    def add(self, table_oid: int, group: G, equality: tuple[str, str] | None) -> None:
        """File a group.

        Args:
            table_oid: Its table.
            group: Compared by identity.
            equality: Column name and the value's canonical text, if its filter demands one.
        """
        index = self._tables.get(table_oid)
        if index is None:
            index = self._tables[table_oid] = _TableIndex()
        index.add(group, equality)

    def remove(self, table_oid: int, group: G, equality: tuple[str, str] | None) -> None:
        """Take a group out again; unknown groups are ignored."""
        index = self._tables.get(table_oid)
        if index is None:
            return
        index.remove(group, equality)
        if index.is_empty():
            del self._tables[table_oid]

    def has_table(self, table_oid: int) -> bool:
        """Tell whether any group is filed under the table."""
        return table_oid in self._tables

    def groups(self, table_oid: int) -> list[G]:
        """Return every group of a table."""
        index = self._tables.get(table_oid)
        return [] if index is None else index.all()

    def candidates(self, change: RowChange) -> list[G]:
        """Return the groups whose equality term may hold for the old or the new row.

        A value that the WAL should carry and does not may equal anything, so every group filed
        under its column is returned: the filter then finds the row undecidable.
        """
        index = self._tables.get(change.relation.oid)
        return [] if index is None else index.candidates(change)


class _TableIndex(Generic[G]):
    """The groups of one table."""

    __slots__ = ("_by_column", "_places", "_rest", "_seen_relation")

    def __init__(self) -> None:
        self._by_column: dict[str, dict[str, dict[int, G]]] = {}
        self._rest: dict[int, G] = {}
        self._seen_relation: Relation | None = None
        self._places: list[tuple[int, dict[str, dict[int, G]]]] = []

    def add(self, group: G, equality: tuple[str, str] | None) -> None:
        self._seen_relation = None
        if equality is None:
            self._rest[id(group)] = group
            return
        column, value = equality
        self._by_column.setdefault(column, {}).setdefault(value, {})[id(group)] = group

    def remove(self, group: G, equality: tuple[str, str] | None) -> None:
        self._seen_relation = None
        if equality is None:
            self._rest.pop(id(group), None)
            return
        column, value = equality
        values = self._by_column.get(column, {})
        groups = values.get(value, {})
        groups.pop(id(group), None)
        if not groups:
            values.pop(value, None)
        if not values:
            self._by_column.pop(column, None)

    def is_empty(self) -> bool:
        return not self._rest and not self._by_column

    def all(self) -> list[G]:
        found = list(self._rest.values())
        for values in self._by_column.values():
            for groups in values.values():
                found.extend(groups.values())
        return found

    def candidates(self, change: RowChange) -> list[G]:
        found = list(self._rest.values())
        if not self._by_column:
            return found
        if change.new is None and change.relation.is_partial and not change.old_is_full:
            return self.all()
        if self._seen_relation is not change.relation:
            self._find_places(change.relation)
        for place, values in self._places:
            found.extend(_looked_up(values, place, change.new, change.old))
        return found

    def _find_places(self, relation: Relation) -> None:
        """Find where the indexed columns stand; a column that is gone is undecidable."""
        positions = {column.name: place for place, column in enumerate(relation.columns)}
        self._places = [
            (positions.get(column, -1), values) for column, values in self._by_column.items()
        ]
        self._seen_relation = relation


def _looked_up(
    values: dict[str, dict[int, G]], place: int, new: Row | None, old: Row | None
) -> Iterable[G]:
    new_value = new[place] if new is not None and place >= 0 else None
    old_value = old[place] if old is not None and place >= 0 else None
    if place < 0 or new_value is Unknown.UNCHANGED_TOAST:
        return [group for groups in values.values() for group in groups.values()]
    new_groups = values.get(new_value) if isinstance(new_value, str) else None
    if isinstance(old_value, str) and old_value != new_value:
        old_groups = values.get(old_value)
        if old_groups is not None:
            return (*(new_groups or {}).values(), *old_groups.values())
    return () if new_groups is None else new_groups.values()
