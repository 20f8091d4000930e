"""One binding on one table, validated, and what PostgreSQL has to say to it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from heliograph.core.matching.binding_parameters import (
    BindingParameters,
    not_enabled,
    raised_by_check,
)
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.matching.filters import BoundParameters
from heliograph.errors import SubscriptionRefusedError
from heliograph.ports.change_subscriptions import ChangeBinding
from heliograph.ports.identity import Identity
from heliograph.postgres.judge_statement import JudgementStatement, build_statement
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.tables import TableEntry


@dataclass(frozen=True, slots=True)
class PlannedBinding:
    """One binding on one table, validated."""

    binding: ChangeBinding
    entry: TableEntry
    bound: BoundParameters


@dataclass(frozen=True, slots=True, eq=False)
class Wildcard:
    """A wildcard binding that waits for tables to come."""

    binding: ChangeBinding
    parameters: BindingParameters
    identity: Identity
    channel: SubscribedChannel


def judged_terms(planned: Collection[PlannedBinding]) -> frozenset[FilterTerm]:
    """Return the filter terms that PostgreSQL must judge."""
    return frozenset(
        [
            filter_term
            for plan in planned
            for filter_term, term in zip(
                plan.bound.parameters.filter_terms, plan.bound.terms, strict=True
            )
            if not term.is_decided_in_python
        ]
    )


def not_streamable(parameters: BindingParameters, reason: str) -> SubscriptionRefusedError:
    """Return the refusal for who may read a table that nobody can stream."""
    return raised_by_check(parameters, f"the table can not be streamed: {reason}")


def refuse_if_gone(
    planned: Collection[PlannedBinding], entries: Mapping[int, TableEntry], role: str
) -> None:
    """Refuse what a reading of the catalog meanwhile has found gone, or no more rights for.

    Raises:
        SubscriptionRefusedError: Naming what was asked for.
    """
    for plan in planned:
        table, parameters = plan.entry.description, plan.bound.parameters
        entry = entries.get(table.oid)
        if entry is None or role not in entry.rights:
            raise not_enabled(parameters)
        # What is renamed may be known by its old name for a moment; then it was planned so.
        is_other = entry.description.name_in_full != table.name_in_full
        if is_other and not parameters.may_name(*entry.description.name_in_full):
            raise not_enabled(parameters)


def has_policy(plan: PlannedBinding, role: str) -> bool:
    """Tell whether policies decide what a role sees of the table."""
    rights = plan.entry.rights[role]
    return not (rights.shows_all or rights.shows_none)


def policy_statement(plan: PlannedBinding, role: str) -> JudgementStatement:
    """Return the policies alone as a statement."""
    table, rights = plan.entry.description, plan.entry.rights[role]
    return build_statement(
        table=(table.oid, table.schema, table.name),
        policy=rights.policy,
        filters=(),
        reads_tables=False,
    )
