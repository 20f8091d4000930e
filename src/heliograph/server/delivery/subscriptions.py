"""Making subscriptions: validate, register, fix the position (promise P3)."""

from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from heliograph.core.matching.binding_parameters import (
    WILDCARD,
    BindingParameters,
    not_enabled,
    parse_binding_parameters,
    raised_by_check,
)
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.matching.filters import BoundParameters, bind_parameters
from heliograph.core.matching.predicates import equality_key
from heliograph.core.matching.visibility import DeleteVisibility
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import (
    JudgementUnavailableError,
    RoleUnusableError,
    SubscriptionRefusedError,
)
from heliograph.ports.change_subscriptions import ChangeBinding, ChangeOutlet, ChangeSubscription
from heliograph.ports.identity import Identity
from heliograph.postgres.filter_sql import refuse_invalid_terms
from heliograph.postgres.judge import Judge
from heliograph.postgres.judge_statement import (
    UNDEFINED_COLUMN,
    JudgementStatement,
    build_statement,
    is_usable,
)
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.dispatcher import Dispatcher
from heliograph.server.delivery.groups import BindingGroup
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.positions import PositionService, StreamPosition, Unsettled
from heliograph.server.delivery.serving import (
    POLICIES_READ_ABSENT,
    ServingRules,
    note_on_deletes,
    what_may_be_told,
    why_withheld,
)
from heliograph.server.delivery.table_registry import TableRegistry
from heliograph.server.delivery.tables import TableEntry

_log = structlog.get_logger("heliograph.subscriptions")


@dataclass(frozen=True, slots=True)
class SubscriptionParts:
    """What making a subscription needs.

    Attributes:
        registry: Tables and rights.
        dispatcher: Lanes and index.
        positions: Fixes positions.
        unsettled: What is owed of the past.
        dependencies: Follows what policies read.
        judge: Checks constants and tries the policies.
        rules: Which tables are served to whom.
        delete_visibility: Who learns of a DELETE; joins are told what that means for them.
    """

    registry: TableRegistry
    dispatcher: Dispatcher
    positions: PositionService
    unsettled: Unsettled
    dependencies: Dependencies
    judge: Judge
    rules: ServingRules
    delete_visibility: DeleteVisibility


@dataclass(frozen=True, slots=True)
class _Planned:
    """One binding on one table, validated."""

    binding: ChangeBinding
    entry: TableEntry
    bound: BoundParameters


@dataclass(frozen=True, slots=True, eq=False)
class _Wildcard:
    """A wildcard binding that waits for tables to come."""

    binding: ChangeBinding
    parameters: BindingParameters
    identity: Identity
    channel: SubscribedChannel


class ChangeSubscriptionService:
    """Implements `ports.change_subscriptions.ChangeSubscriptions`."""

    def __init__(self, parts: SubscriptionParts) -> None:
        """Wire the parts."""
        self._parts = parts
        self._wildcards: dict[SubscribedChannel, list[_Wildcard]] = {}
        #: In order, each once: equal entries of one join share a group.
        self._members: dict[SubscribedChannel, dict[BindingGroup, None]] = {}
        #: Bounded by the tables of the publication, the roles of tokens and our own reasons.
        self._logged: set[tuple[str, int, str, str]] = set()

    @property
    def channel_count(self) -> int:
        """Channels that are subscribed."""
        return len(self._members)

    def has_wildcards(self) -> bool:
        """Tell whether any subscription stands for tables to come."""
        return bool(self._wildcards)

    async def subscribe(
        self,
        *,
        bindings: Sequence[ChangeBinding],
        identity: Identity,
        outlet: ChangeOutlet,
        replaces: ChangeSubscription | None = None,
    ) -> ChangeSubscription:
        """Validate all bindings, register them and fix the stream position; see the port."""
        parsed = [(binding, parse_binding_parameters(binding.parameters)) for binding in bindings]
        planned: list[_Planned] = []
        published = {
            (table.schema, table.name): table.oid
            for table in await self._parts.registry.published_tables()
        }
        for binding, parameters in parsed:
            planned.extend(await self._plan(binding, parameters, identity, published))
        planned = await self._try_out(planned, identity)
        channel = SubscribedChannel(
            outlet, counters=self._parts.dispatcher.counters, on_close=self._close
        )
        wildcards = [
            # What the client wrote there, up to a megabyte, has been read by now.
            _Wildcard(ChangeBinding(binding.id, {}), parameters, identity, channel)
            for binding, parameters in parsed
            if parameters.is_wildcard
        ]

        def register(position: StreamPosition) -> None:
            self._refuse_if_gone(planned, identity.role)
            before = replaces if isinstance(replaces, SubscribedChannel) else None
            if before is not None and not before.is_closed:
                self._register_successor(channel, before, planned, identity)
            else:
                self._register(channel, planned, identity, position)
            if wildcards:
                self._wildcards[channel] = wildcards

        try:
            await self._parts.positions.fix(register)
        except BaseException:
            channel.close()
            raise
        for note in self._notes(planned, identity.role):
            outlet.send_system(status="ok", message=note)
        return channel

    async def expand(self, table_oid: int) -> None:
        """Give wildcard subscriptions a table that appeared in the stream for the first time.

        Nothing is dispatched meanwhile, so what equal subscriptions of a role ask of PostgreSQL is
        asked once.
        """
        published = {
            (table.schema, table.name): table.oid
            for table in await self._parts.registry.published_tables()
            if table.oid == table_oid
        }
        refused: dict[tuple[str, BindingParameters], bool] = {}
        for wildcard in [one for many in self._wildcards.values() for one in many]:
            question = (wildcard.identity.role, wildcard.parameters)
            try:
                planned = await self._plan(
                    wildcard.binding, wildcard.parameters, wildcard.identity, published
                )
                if question not in refused:
                    refused[question] = True
                    await self._try_out_expanded(planned, wildcard.identity)
                    refused[question] = False
                self._refuse_if_gone(planned, wildcard.identity.role)
            except SubscriptionRefusedError:
                continue
            if not refused[question] and not self._covers(wildcard, table_oid):
                self._add_groups(wildcard.channel, planned, wildcard.identity)

    async def _try_out_expanded(self, planned: list[_Planned], identity: Identity) -> None:
        """Do `_try_out`; without an answer they subscribe untried: judgements deny what fails."""
        with suppress(JudgementUnavailableError):
            await self._try_out(planned, identity, is_join=False)

    def _covers(self, wildcard: _Wildcard, table_oid: int) -> bool:
        """Tell whether a binding has a table already, or its channel has ended meanwhile."""
        channel = wildcard.channel
        return channel.is_closed or any(
            group.entry.description.oid == table_oid
            and wildcard.binding.id in group.channels.get(channel, ())
            for group in self._members[channel]
        )

    # --- validation -----------------------------------------------------------------------------

    async def _plan(
        self,
        binding: ChangeBinding,
        parameters: BindingParameters,
        identity: Identity,
        published: dict[tuple[str, str], int],
    ) -> list[_Planned]:
        oids = [
            oid
            for (schema, name), oid in published.items()
            if parameters.schema in {WILDCARD, schema} and parameters.table in {WILDCARD, name}
        ]
        planned: list[_Planned] = []
        for oid in oids:
            entry = await self._parts.registry.load(oid, identity.role)
            if entry is None:
                continue
            reason = why_withheld(entry, identity.role, self._parts.rules)
            if reason is not None:
                self._log_once("table_withheld", oid, identity.role, reason)
                told = what_may_be_told(entry, identity.role, self._parts.rules)
                if told is not None and not parameters.is_wildcard:
                    raise _not_streamable(parameters, told)
                # The client learns the same as for a table that does not exist (S20).
                continue
            selectable = entry.rights[identity.role].selectable
            bound = bind_parameters(parameters, entry.description, selectable)
            planned.append(_Planned(binding, entry, bound))
        if not planned:
            raise not_enabled(parameters)
        return planned

    async def _try_out(
        self, planned: list[_Planned], identity: Identity, *, is_join: bool = True
    ) -> list[_Planned]:
        """Have PostgreSQL accept the constants and plan the policies, as the role itself.

        Returns:
            What is left: a wildcard stands for the tables that can be served.
        """
        role = identity.role
        for entry in {id(plan.entry): plan.entry for plan in planned}.values():
            if entry.rights[identity.role].reads_tables:
                await self._parts.dependencies.prepare(entry.description.oid)
        asking = [
            plan for plan in planned if plan.bound.needs_postgres_check or _has_policy(plan, role)
        ]
        try:
            refused = await self._refused_by_postgres(asking, identity, is_join=is_join)
        except RoleUnusableError as cause:
            message = f"Unable to subscribe to changes: role {identity.role} can not be assumed"
            raise SubscriptionRefusedError(message, reason="role_not_usable") from cause
        left = [plan for plan in planned if all(plan is not other for other in refused)]
        for plan in refused:
            if all(plan.binding is not other.binding for other in left):
                raise not_enabled(plan.bound.parameters)
        return left

    async def _refused_by_postgres(
        self, asking: Sequence[_Planned], identity: Identity, *, is_join: bool
    ) -> list[_Planned]:
        """Return what can not be served of wildcards; anything else that fails is raised.

        A statement that fails spoils its transaction, so those behind it are tried in another one.
        """
        role, waiting, refused = identity.role, deque(asking), list[_Planned]()
        while waiting:
            async with self._parts.judge.as_role(
                role, identity.claims_json, is_join=is_join
            ) as connection:
                while waiting:
                    plan = waiting.popleft()
                    await refuse_invalid_terms(connection, plan.bound)
                    if not _has_policy(plan, role):
                        continue
                    sqlstate = await is_usable(connection, _policy_statement(plan, role))
                    if sqlstate is not None:
                        self._refuse_policies(plan, role, sqlstate)
                        refused.append(plan)
                        break
        return refused

    def _refuse_policies(self, plan: _Planned, role: str, sqlstate: str) -> None:
        """Refuse a table whose policies fail before there is a row; the log says why.

        PostgreSQL itself wrote the policies down, so a column that it does not find in the row is a
        system column: then SELECT works, and who may read the table learns the reason. Otherwise
        the client learns the same as for a table that does not exist (S20).
        """
        oid, parameters = plan.entry.description.oid, plan.bound.parameters
        is_absent_column = sqlstate == UNDEFINED_COLUMN
        if is_absent_column:
            self._log_once("table_withheld", oid, role, POLICIES_READ_ABSENT)
        else:
            self._log_once("policies_not_usable", oid, role, sqlstate)
        if parameters.is_wildcard:
            return
        if is_absent_column:
            raise _not_streamable(parameters, POLICIES_READ_ABSENT)
        raise not_enabled(parameters)

    def _notes(self, planned: Sequence[_Planned], role: str) -> list[str]:
        """Say once for each table what deletes will look like, where policies decide."""
        tables = {
            plan.entry.description.oid: plan.entry.description
            for plan in planned
            if plan.bound.parameters.event in {WILDCARD, "DELETE"} and _has_policy(plan, role)
        }
        notes = [note_on_deletes(table, self._parts.delete_visibility) for table in tables.values()]
        return [note for note in notes if note is not None]

    def _log_once(self, event: str, table_oid: int, role: str, reason: str) -> None:
        """Write each reason once: clients can join, and be refused, without end."""
        if (event, table_oid, role, reason) not in self._logged:
            self._logged.add((event, table_oid, role, reason))
            _log.warning(event, table_oid=table_oid, role=role, reason=reason)

    def _refuse_if_gone(self, planned: Sequence[_Planned], role: str) -> None:
        """Refuse what a reading of the catalog meanwhile has found no more rights for."""
        for plan in planned:
            entry = self._parts.registry.entry(plan.entry.description.oid)
            if entry is not None and role not in entry.rights:
                raise not_enabled(plan.bound.parameters)

    # --- registration ---------------------------------------------------------------------------

    def _register(
        self,
        channel: SubscribedChannel,
        planned: Sequence[_Planned],
        identity: Identity,
        position: StreamPosition,
    ) -> None:
        """File the bindings and hand over what is owed of the past; runs without an await."""
        self._members[channel] = {}
        lane = self._add_groups(channel, planned, identity)
        owed = self._parts.unsettled.not_seen_by(position.snapshot)
        oids = {plan.entry.description.oid for plan in planned}
        concerned = [transaction for transaction in owed if oids & _changed_tables(transaction)]
        self._parts.dispatcher.begin(lane, channel, position, concerned)

    def _register_successor(
        self,
        channel: SubscribedChannel,
        before: SubscribedChannel,
        planned: Sequence[_Planned],
        identity: Identity,
    ) -> None:
        """File the bindings of a subscription that continues where another one ends."""
        self._members[channel] = {}
        lane = self._add_groups(channel, planned, identity)
        self._parts.dispatcher.succeed(lane, channel, self._lane_of(before), before)

    def _lane_of(self, channel: SubscribedChannel) -> Lane | None:
        groups = self._members.get(channel)
        return self._parts.dispatcher.lanes[next(iter(groups)).audience] if groups else None

    def _add_groups(
        self, channel: SubscribedChannel, planned: Sequence[_Planned], identity: Identity
    ) -> Lane:
        # A channel has one lane for its life: order within it is order within the lane.
        lane = self._lane_of(channel) or self._parts.dispatcher.lane(
            identity.role, identity.claims_json, _judged_terms(planned)
        )
        for plan in planned:
            group = self._group(lane, plan)
            ids = group.channels.get(channel, ())
            if plan.binding.id not in ids:
                group.channels[channel] = (*ids, plan.binding.id)
            self._members[channel][group] = None
        return lane

    def _group(self, lane: Lane, plan: _Planned) -> BindingGroup:
        parameters = plan.bound.parameters
        oid = plan.entry.description.oid
        # The registry may have read the table again since the plan was made.
        entry = self._parts.registry.entry(oid) or plan.entry
        select = None if parameters.select is None else frozenset(parameters.select)
        key = (oid, parameters.event, parameters.filter_terms, select)
        group = lane.groups.get(key)
        if group is None:
            equality = equality_key(plan.bound.terms, entry.description)
            group = BindingGroup(lane.audience, entry, parameters, plan.bound.terms, equality)
            group.adopt(entry, self._parts.rules)
            lane.groups[key] = group
            self._parts.dispatcher.index.add(oid, group, equality)
        return group

    def _close(self, channel: SubscribedChannel) -> None:
        """Take a channel out of everything; called once, when it ends."""
        self._wildcards.pop(channel, None)
        for group in self._members.pop(channel, ()):
            group.channels.pop(channel, None)
            if group.channels:
                continue
            lane = self._parts.dispatcher.lanes[group.audience]
            for key in [key for key, known in lane.groups.items() if known is group]:
                del lane.groups[key]
            oid = group.entry.description.oid
            self._parts.dispatcher.index.remove(oid, group, group.equality)
            self._parts.dispatcher.drop_lane(lane)


def _changed_tables(transaction: Transaction) -> set[int]:
    return {relation.oid for relation in (*transaction.relations, *transaction.truncated)}


def _judged_terms(planned: Collection[_Planned]) -> frozenset[FilterTerm]:
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


def _not_streamable(parameters: BindingParameters, reason: str) -> SubscriptionRefusedError:
    return raised_by_check(parameters, f"the table can not be streamed: {reason}")


def _has_policy(plan: _Planned, role: str) -> bool:
    rights = plan.entry.rights[role]
    return not (rights.shows_all or rights.shows_none)


def _policy_statement(plan: _Planned, role: str) -> JudgementStatement:
    table, rights = plan.entry.description, plan.entry.rights[role]
    return build_statement(
        table=(table.oid, table.schema, table.name),
        policy=rights.policy,
        filters=(),
        reads_tables=False,
    )
