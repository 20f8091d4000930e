"""Tables that somebody subscribed to, with the rights of the roles that did.

An entry is replaced as a whole when the catalog has changed; groups look it up again by oid. A
relation that does not agree with the catalog denies until both agree (`visibility.md` §3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from heliograph.core.matching.change_json import ChangeEncoder
from heliograph.core.matching.table_description import ColumnDescription, TableDescription
from heliograph.core.matching.table_rights import TableRights
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.relation import Relation


@dataclass(frozen=True, slots=True)
class RelationLayout:
    """Where the WAL's columns stand in the table.

    Attributes:
        relation: The relation version.
        places: For each column of the table, in attribute order, its place in a WAL row.
        key_places: Places of the primary key in a WAL row.
    """

    relation: Relation
    places: tuple[int | None, ...]
    key_places: tuple[int, ...]


@dataclass(slots=True, eq=False)
class TableEntry:
    """One table at one catalog version.

    Attributes:
        description: What the catalog says.
        rights: Rights of each role that subscribed, by role name.
        valid_since: Changes that committed before it must not be judged by these rights.
        layout: Layout of the relation version seen last; None before the first row.
        encoders: Encoders by the columns shown, for the current layout.
    """

    description: TableDescription
    rights: dict[str, TableRights]
    valid_since: Lsn = ZERO_LSN
    layout: RelationLayout | None = None
    encoders: dict[tuple[str, ...], ChangeEncoder] = field(
        default_factory=dict[tuple[str, ...], ChangeEncoder]
    )

    def adopt(self, relation: Relation) -> bool:
        """Make ``relation`` the current one if it agrees with the catalog.

        Returns:
            False if names, types or their number differ: nothing of it may be judged.
        """
        if self.layout is not None and self.layout.relation is relation:
            return True
        if self.layout is not None and self.layout.relation == relation:
            # The same again, as it is sent after a reconnect.
            self.layout = replace(self.layout, relation=relation)
            return True
        layout = lay_out(self.description, relation)
        if layout is None:
            return False
        self.layout = layout
        self.encoders.clear()
        return True

    def encoder(self, shown: tuple[str, ...]) -> ChangeEncoder:
        """Return the encoder for the columns shown; `adopt` must have succeeded."""
        found = self.encoders.get(shown)
        if found is None:
            if self.layout is None:
                message = "no relation was adopted before encoding"
                raise AssertionError(message)
            found = ChangeEncoder(self.description, self.layout.relation, shown)
            self.encoders[shown] = found
        return found


def lay_out(table: TableDescription, relation: Relation) -> RelationLayout | None:
    """Compare a relation with the catalog; None when they do not agree."""
    if (relation.schema, relation.name) != (table.schema, table.name):
        return None
    if relation.replica_identity is not table.replica_identity:
        return None
    places = {column.name: place for place, column in enumerate(relation.columns)}
    if not _types_agree(table.columns, relation, places):
        return None
    if any(table.is_streamed(each) for each in table.columns if each.name not in places):
        return None
    key_places = tuple(places[name] for name in table.primary_key if name in places)
    if not all(relation.columns[place].is_key for place in key_places):
        return None
    return RelationLayout(
        relation=relation,
        places=tuple(places.get(column.name) for column in table.columns),
        key_places=key_places,
    )


def _types_agree(
    columns: Sequence[ColumnDescription], relation: Relation, places: dict[str, int]
) -> bool:
    known = {column.name: column.type_oid for column in columns}
    return len(places) == len(relation.columns) and all(
        known.get(column.name) == column.type_oid for column in relation.columns
    )
