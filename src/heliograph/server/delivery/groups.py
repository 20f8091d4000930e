"""Bindings that ask the same question: one table, event, filter, column list and audience.

A change is matched, judged and encoded once per group, however many channels it has.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.core.matching.change_json import shown_columns
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.matching.filters import BoundTerm
from heliograph.core.matching.predicates import CompiledFilter, compile_filter
from heliograph.core.matching.visibility import Verdict
from heliograph.core.replication.row_change import ChangeKind, Row, RowChange
from heliograph.postgres.filter_sql import expressions
from heliograph.postgres.judge_statement import JudgementStatement, build_statement
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.serving import ServingRules, why_withheld
from heliograph.server.delivery.tables import TableEntry

#: Role, claims, and the filter terms that PostgreSQL judges: what a lane is for.
Audience = tuple[str, str, frozenset[FilterTerm]]


class Match(NamedTuple):
    """A change that may concern a group.

    Attributes:
        change: The change.
        group: The group.
        new: What the filter's part decided in Python says of the new row.
        old: The same of the old row.
        version: The group's version at the time.
    """

    change: RowChange
    group: "BindingGroup"
    new: Verdict
    old: Verdict
    version: int

    def is_stale(self) -> bool:
        """Tell whether the table or the rights were read anew since the match."""
        return self.version != self.group.version


@dataclass(slots=True, eq=False)
class BindingGroup:
    """One question of one audience about one table.

    Attributes:
        audience: Role, claims, and the terms that PostgreSQL judges; names the lane.
        entry: The table; replaced when the catalog changes (`adopt`).
        parameters: The validated binding.
        terms: Its filter, bound to the table's columns.
        channels: Binding ids by channel, in join order.
        shown: Columns that go out, in attribute order: readable ones, or of those the selected
            ones with the key.
        equality: What it is filed under in the index.
        version: Grows with every change of table or rights.
        stale_reason: Why what was matched before the last change is not delivered.
        is_withheld: Whether the table is not served to the role any more (`serving`).
    """

    audience: Audience
    entry: TableEntry
    parameters: BindingParameters
    terms: tuple[BoundTerm, ...]
    equality: tuple[str, str] | None
    shown: tuple[str, ...] = ()
    version: int = 0
    stale_reason: str = "table_changed"
    is_withheld: bool = False
    channels: dict[SubscribedChannel, tuple[int, ...]] = field(
        default_factory=dict[SubscribedChannel, tuple[int, ...]]
    )
    _compiled: CompiledFilter | None = None
    _compiled_for: object = None
    _statement: JudgementStatement | None = None
    _filter_statement: JudgementStatement | None = None

    @property
    def role(self) -> str:
        """The database role."""
        return self.audience[0]

    @property
    def is_bound(self) -> bool:
        """Whether policies decide what it sees."""
        rights = self.entry.rights.get(self.role)
        return rights is None or not (rights.shows_all or rights.shows_none)

    def adopt(self, entry: TableEntry, rules: ServingRules) -> None:
        """Follow a new catalog version of the table, which holds the role's rights."""
        same_table = entry.description == self.entry.description
        self.stale_reason = "rights_changed" if same_table else "table_changed"
        self.entry = entry
        self.version += 1
        selectable = entry.rights[self.role].selectable
        # A filter on what the role may not read any more would go on answering about it.
        is_allowed = all(term.column.name in selectable for term in self.terms)
        self.is_withheld = not is_allowed or why_withheld(entry, self.role, rules) is not None
        self._compiled = self._compiled_for = None
        self._statement = self._filter_statement = None
        self.shown = shown_columns(entry.description, selectable, self.parameters.select)

    def withhold(self) -> None:
        """Show nothing any more: the table or the role is gone."""
        self.version += 1
        self.stale_reason = "table_changed"
        self.is_withheld = True

    def filter(self) -> CompiledFilter:
        """Return the filter compiled for the current layout."""
        layout = self.entry.layout
        if self._compiled is None or self._compiled_for is not layout:
            if layout is None:
                message = "no relation was adopted before matching"
                raise AssertionError(message)
            self._compiled = compile_filter(self.terms, self.entry.description, layout.relation)
            self._compiled_for = layout
        return self._compiled

    def match(self, change: RowChange, *, leave_events: bool) -> Match | None:
        """Decide in Python whether the change may concern the group."""
        event = self.parameters.event
        kind = change.kind
        if event not in {"*", kind.value} and not (
            leave_events and event == "DELETE" and kind is ChangeKind.UPDATE and change.old_is_full
        ):
            return None
        predicate = self.filter()
        new = _asked(predicate, change.new)
        old = _asked(predicate, change.old)
        if kind is ChangeKind.UPDATE and not change.old_is_full:
            old = Verdict.UNDECIDED
            return None if new is Verdict.NO else Match(change, self, new, old, self.version)
        if Verdict.YES in {new, old} or (Verdict.UNDECIDED is new and change.new is not None):
            return Match(change, self, new, old, self.version)
        if Verdict.UNDECIDED is old and change.relation.is_partial:
            # FULL was promised, so whoever filters by another column than the key relies on it.
            return Match(change, self, new, old, self.version)
        return None

    def needs_judge(self) -> bool:
        """Tell whether PostgreSQL must be asked about some rows."""
        if self.is_withheld:
            return False
        rights = self.entry.rights[self.role]
        return not (rights.shows_all or rights.shows_none) or bool(self.filter().sql_terms)

    def statement(self) -> JudgementStatement:
        """Return the question about policies and filter."""
        if self._statement is None:
            rights = self.entry.rights[self.role]
            self._statement = self._build(rights.policy, reads_tables=rights.reads_tables)
        return self._statement

    def filter_statement(self) -> JudgementStatement:
        """Return the question about the filter alone."""
        if self._filter_statement is None:
            self._filter_statement = self._build(None, reads_tables=False)
        return self._filter_statement

    def _build(self, policy: str | None, *, reads_tables: bool) -> JudgementStatement:
        table = self.entry.description
        return build_statement(
            table=(table.oid, table.schema, table.name),
            policy=policy,
            filters=expressions(self.filter().sql_terms, table.name),
            reads_tables=reads_tables,
        )


def _asked(predicate: CompiledFilter, row: Row | None) -> Verdict:
    return Verdict.NO if row is None else predicate.decide(row)
