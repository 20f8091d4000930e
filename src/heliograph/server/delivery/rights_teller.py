"""Tells who keeps positions when what decides his rights has changed, even where no row did.

Rights that change move rows in and out of view without any event in the WAL (`visibility.md` §1): a
client that believes its rows to be what SELECT shows must load them again. Who has no positions is
told nothing, as everywhere else.

Which changes count: definitions (policies, grants, functions) and the rows of tables that policies
read, whatever is changed in them. That is more than necessary: a row of another user counts, too.
"""

from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING

from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.lane_item import LaneMark
from heliograph.server.delivery.rights_messages import DefinitionChange
from heliograph.server.delivery.rights_watch import GENERAL

if TYPE_CHECKING:
    from heliograph.server.delivery.dispatcher import Dispatcher
    from heliograph.server.delivery.groups import BindingGroup
    from heliograph.server.delivery.marks import PositionMarks


class RightsTeller:
    """See the module; belongs to the event loop."""

    def __init__(
        self, dispatcher: "Dispatcher", dependencies: Dependencies, marks: "PositionMarks"
    ) -> None:
        """Wire it.

        Args:
            dispatcher: Knows who subscribed.
            dependencies: Knows what policies read.
            marks: Knows whether anybody keeps positions.
        """
        self._dispatcher = dispatcher
        self._dependencies = dependencies
        self._marks = marks

    def dispatched(self, transaction: Transaction, change: DefinitionChange | None) -> None:
        """Tell whom a transaction concerns that was just dispatched, behind its rows."""
        if not self._marks:
            return
        readers = self._dependencies.readers
        tables: set[int] = set()
        for relation in (*transaction.relations, *transaction.truncated):
            tables.update(readers(relation.oid))
        groups = self._groups(tables)
        if change is not None and change.is_of_rights:
            # Whom another publication concerns is told of that (`Preparation`).
            groups += self._groups_under(change)
        told: dict[BindingGroup, None] = dict.fromkeys(groups)
        for group in told:
            lane = self._dispatcher.lanes.get(group.audience)
            if lane is not None:
                tell = partial(_tell_owed, group, transaction)
                lane.tell_in_order(LaneMark(transaction.commit_lsn, tell))

    def parts_changed(self, parts: Collection[int]) -> None:
        """Tell whom a change concerns that was found in the catalog: in no order with the rows."""
        if not self._marks:
            return
        if GENERAL in parts:
            groups = list(self._every_group())
        else:
            groups = self._groups_of(parts)
            readers = self._dependencies.readers
            groups += self._groups({oid for part in parts for oid in readers(part)})
        for group in groups:
            tell(group)

    def tables_changed(self, tables: Collection[int]) -> None:
        """Tell whoever is judged by other tables than was known, or by other rights."""
        for group in self._groups(tables) if self._marks else ():
            tell(group)

    def _groups_under(self, change: DefinitionChange) -> "list[BindingGroup]":
        if change.is_general:
            return [group for group in self._every_group() if group.is_bound]
        readers = self._dependencies.readers
        # Grants concern whom no policy binds, too.
        named = self._groups_of(change.tables)
        return named + self._groups({oid for each in change.tables for oid in readers(each)})

    def _groups(self, tables: Iterable[int]) -> "list[BindingGroup]":
        return [group for group in self._groups_of(tables) if group.is_bound]

    def _groups_of(self, tables: Iterable[int]) -> "list[BindingGroup]":
        return [group for oid in tables for group in self._dispatcher.index.groups(oid)]

    def _every_group(self) -> "Iterable[BindingGroup]":
        for lane in self._dispatcher.lanes.values():
            yield from lane.groups.values()


def tell(group: "BindingGroup") -> None:
    """Tell the channels of a group that keep positions, now."""
    for channel in tuple(group.channels):
        if channel.marks is not None and not channel.is_closed:
            channel.marks.rights_changed()


def _tell_owed(group: "BindingGroup", transaction: Transaction) -> None:
    for channel in tuple(group.channels):
        is_owed = channel.is_owed(transaction.xid, transaction.commit_lsn)
        if channel.marks is not None and is_owed and not channel.is_closed:
            channel.marks.rights_changed()
