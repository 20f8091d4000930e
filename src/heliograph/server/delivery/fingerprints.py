"""Fingerprints in positions: who subscribed to what, and what decided what he may see.

Equal fingerprints mean that nothing changed, but for what was changed and put back unseen. They
hold across processes, so nothing in them may depend on the order of sets or on addresses.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, cast

from heliograph.core.changelog.position import Fingerprint, make_fingerprint
from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.ports.identity import Identity
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.rights_watch import GENERAL, RightsWatch
from heliograph.server.delivery.table_registry import TableRegistry

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import BindingGroup
    from heliograph.server.delivery.tables import TableEntry

#: Claims that differ from token to token of one session and say nothing about its owner.
_OF_THE_TOKEN: Final = frozenset({"exp", "iat", "nbf", "jti"})


def subscription_fingerprint(
    identity: Identity, parameters: Sequence[BindingParameters]
) -> Fingerprint:
    """Return what stands for one subscriber's subscription: role, claims and entries, in order."""
    lasting = {name: claim for name, claim in identity.claims.items() if name not in _OF_THE_TOKEN}
    entries = [_plain(entry) for entry in parameters]
    return make_fingerprint(
        json.dumps([identity.role, lasting, entries], sort_keys=True, default=repr)
    )


class RightsFingerprints:
    """Makes fingerprints of rights; keeps those that still hold. Belongs to the event loop."""

    def __init__(
        self, rights: RightsWatch, dependencies: Dependencies, registry: TableRegistry
    ) -> None:
        """Wire it.

        Args:
            rights: What decides everybody's rights, as it was compared last.
            dependencies: What policies read.
            registry: Knows the partitions of tables, whose rows come and go without an event.
        """
        self._rights = rights
        self._dependencies = dependencies
        self._registry = registry
        #: By entry and role; an entry is replaced when anything about it changes.
        self._entries: dict[TableEntry, dict[str, str]] = {}

    @property
    def version(self) -> tuple[int, int, int]:
        """Another value whenever fingerprints may differ, but for entries that were replaced."""
        return (
            self._rights.version,
            self._dependencies.version,
            self._registry.partitions_version,
        )

    def parts(self, groups: Iterable["BindingGroup"]) -> frozenset[int]:
        """Return the parts of `RightsWatch` that the fingerprint of some groups stands for."""
        tables, reads = self.relations(groups)
        return frozenset({GENERAL, *tables, *reads})

    def relations(self, groups: Iterable["BindingGroup"]) -> tuple[set[int], set[int]]:
        """Return the tables of some groups, and what judging their rows is known to read."""
        tables: set[int] = set()
        reads: set[int] = set()
        for group in groups:
            tables.add(group.entry.description.oid)
            reads.update(self._reads(group))
        return tables, reads

    def reads_unfollowed(self, groups: Iterable["BindingGroup"]) -> bool:
        """Tell whether some groups are judged by tables whose changes nobody sees."""
        unfollowed = self._dependencies.unfollowed
        return bool(unfollowed) and any(
            read in unfollowed for group in groups for read in self._reads(group)
        )

    def rights(self, groups: Collection["BindingGroup"]) -> Fingerprint:
        """Return what stands for the rights of some groups, as far as they are known now."""
        lines = {
            f"{group.entry.description.oid} {self._entry(group)} {sorted(self._reads(group))}"
            f" {self._registry.partitions_mark(group.entry.description.oid)}"
            for group in groups
        }
        parts = sorted(self.parts(groups))
        lines.update(f"{part} = {self._rights.value(part)}" for part in parts)
        return make_fingerprint("\n".join(sorted(lines)))

    def _reads(self, group: "BindingGroup") -> Collection[int]:
        return self._dependencies.reads(group.entry.description.oid) if group.is_bound else ()

    def _entry(self, group: "BindingGroup") -> str:
        entry, role = group.entry, group.role
        by_role = self._entries.get(entry)
        if by_role is None:
            if len(self._entries) >= _ENTRIES_MAX:
                self._entries.clear()
            by_role = self._entries[entry] = {}
        if role not in by_role:
            text = repr([_plain(entry.description), _plain(entry.rights.get(role))])
            by_role[role] = f"{role} {make_fingerprint(text):016x}"
        return by_role[role]


#: Entries whose digest is kept; more of them are digested again and again.
_ENTRIES_MAX: Final = 10_000


def _plain(value: object) -> object:
    """Return a value as lists of atoms, the same in every process."""
    if isinstance(value, Enum):
        return cast("object", value.value)
    if isinstance(value, frozenset | set):
        return sorted(map(repr, map(_plain, cast("Iterable[object]", value))))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Iterable[object]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    return value
