"""Making subscriptions: validate, register, fix the position (promise P3)."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from heliograph.core.changelog.position import Fingerprint
from heliograph.core.matching.binding_parameters import (
    WILDCARD,
    BindingParameters,
    not_enabled,
    parse_binding_parameters,
)
from heliograph.core.matching.filters import bind_parameters
from heliograph.core.matching.position_request import PositionRequest, read_position_request
from heliograph.core.matching.predicates import equality_key
from heliograph.core.matching.visibility import DeleteVisibility
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import (
    JudgementUnavailableError,
    RoleUnusableError,
    SubscriptionRefusedError,
)
from heliograph.ports.change_subscriptions import ChangeBinding, ChangeOutlet, ChangeSubscription
from heliograph.ports.clock import Clock
from heliograph.ports.identity import Identity
from heliograph.postgres.filter_sql import refuse_invalid_terms
from heliograph.postgres.judge import Judge
from heliograph.postgres.judge_statement import (
    UNDEFINED_COLUMN,
    is_usable,
)
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.dispatcher import Dispatcher
from heliograph.server.delivery.fingerprints import subscription_fingerprint
from heliograph.server.delivery.groups import BindingGroup
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.planned_binding import (
    PlannedBinding,
    Wildcard,
    has_policy,
    judged_terms,
    not_streamable,
    policy_statement,
    refuse_if_gone,
)
from heliograph.server.delivery.positions import PositionService, StreamPosition, Unsettled
from heliograph.server.delivery.recent_trials import RecentTrials
from heliograph.server.delivery.resuming import Resuming, Resumption
from heliograph.server.delivery.serving import (
    POLICIES_READ_ABSENT,
    ServingRules,
    note_on_deletes,
    what_may_be_told,
    why_withheld,
)
from heliograph.server.delivery.table_registry import TableRegistry

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
        resuming: Decides whether a subscription goes on where its client was.
        clock: For ages.
    """

    registry: TableRegistry
    dispatcher: Dispatcher
    positions: PositionService
    unsettled: Unsettled
    dependencies: Dependencies
    judge: Judge
    rules: ServingRules
    delete_visibility: DeleteVisibility
    resuming: Resuming
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Positions:
    """What a subscription asks for about positions."""

    request: PositionRequest
    subscription: Fingerprint


class ChangeSubscriptionService:
    """Implements `ports.change_subscriptions.ChangeSubscriptions`."""

    def __init__(self, parts: SubscriptionParts) -> None:
        """Wire the parts."""
        self._parts = parts
        self._trials = RecentTrials(parts.clock)
        self._wildcards: dict[SubscribedChannel, list[Wildcard]] = {}
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
        may_resume: bool = True,
    ) -> ChangeSubscription:
        """Validate all bindings, register them and fix the stream position; see the port."""
        parsed = [(binding, parse_binding_parameters(binding.parameters)) for binding in bindings]
        positions = _positions(bindings, [each for _, each in parsed], identity)
        planned: list[PlannedBinding] = []
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
            Wildcard(ChangeBinding(binding.id, {}), parameters, identity, channel)
            for binding, parameters in parsed
            if parameters.is_wildcard
        ]

        def register(position: StreamPosition) -> None:
            refuse_if_gone(planned, self._parts.registry.entries(), identity.role)
            before = replaces if isinstance(replaces, SubscribedChannel) else None
            if before is not None and not before.is_closed:
                self._register_successor(channel, before, planned, identity, positions)
            elif positions is not None:
                self._register_with_positions(
                    channel, planned, identity, position, positions, may_resume=may_resume
                )
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
                refuse_if_gone(planned, self._parts.registry.entries(), wildcard.identity.role)
            except SubscriptionRefusedError:
                continue
            if not refused[question] and not self._covers(wildcard, table_oid):
                self._add_groups(wildcard.channel, planned, wildcard.identity)

    async def _try_out_expanded(self, planned: list[PlannedBinding], identity: Identity) -> None:
        """Do `_try_out`; without an answer they subscribe untried: judgements deny what fails."""
        with suppress(JudgementUnavailableError):
            await self._try_out(planned, identity, is_join=False)

    def _covers(self, wildcard: Wildcard, table_oid: int) -> bool:
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
    ) -> list[PlannedBinding]:
        oids = [
            oid for (schema, name), oid in published.items() if parameters.may_name(schema, name)
        ]
        planned: list[PlannedBinding] = []
        for oid in oids:
            entry = await self._parts.registry.load(oid, identity.role)
            if entry is None:
                continue
            reason = why_withheld(entry, identity.role, self._parts.rules)
            if reason is not None:
                self._log_once("table_withheld", oid, identity.role, reason)
                told = what_may_be_told(entry, identity.role, self._parts.rules)
                if told is not None and not parameters.is_wildcard:
                    raise not_streamable(parameters, told)
                # The client learns the same as for a table that does not exist (S20).
                continue
            selectable = entry.rights[identity.role].selectable
            bound = bind_parameters(parameters, entry.description, selectable)
            planned.append(PlannedBinding(binding, entry, bound))
        if not planned:
            raise not_enabled(parameters)
        return planned

    async def _try_out(
        self, planned: list[PlannedBinding], identity: Identity, *, is_join: bool = True
    ) -> list[PlannedBinding]:
        """Have PostgreSQL accept the constants and plan the policies, as the role itself.

        Returns:
            What is left: a wildcard stands for the tables that can be served.
        """
        for entry in {id(plan.entry): plan.entry for plan in planned}.values():
            if entry.rights[identity.role].reads_tables:
                await self._parts.dependencies.prepare(entry.description.oid)
        try:
            refused = await self._tried_lately(planned, identity, is_join=is_join)
        except RoleUnusableError as cause:
            message = f"Unable to subscribe to changes: role {identity.role} can not be assumed"
            raise SubscriptionRefusedError(message, reason="role_not_usable") from cause
        left = [plan for plan in planned if all(plan is not other for other in refused)]
        for plan in refused:
            if all(plan.binding is not other.binding for other in left):
                raise not_enabled(plan.bound.parameters)
        return left

    async def _tried_lately(
        self, planned: Sequence[PlannedBinding], identity: Identity, *, is_join: bool
    ) -> list[PlannedBinding]:
        """Do `_refused_by_postgres`, unless the same policies passed for somebody else just now."""
        role = identity.role
        policies = [plan for plan in planned if has_policy(plan, role)]
        if not policies or any(plan.bound.needs_postgres_check for plan in planned):
            return await self._refused_by_postgres(planned, identity, is_join=is_join)
        # A database in another encoding may not know every letter of the claims.
        claims = "" if identity.claims_json.isascii() else identity.claims_json
        question = (
            role,
            claims,
            frozenset((p.entry.description.oid, p.entry.rights[role].policy) for p in policies),
        )
        async with self._trials.trial(question) as trial:
            if not trial.is_needed:
                return []
            refused = await self._refused_by_postgres(policies, identity, is_join=is_join)
            trial.has_passed = not refused
            return refused

    async def _refused_by_postgres(
        self, asking: Sequence[PlannedBinding], identity: Identity, *, is_join: bool
    ) -> list[PlannedBinding]:
        """Return what can not be served of wildcards; anything else that fails is raised.

        A statement that fails spoils its transaction, so those behind it are tried in another one.
        """
        role, refused = identity.role, list[PlannedBinding]()
        waiting = deque(
            plan for plan in asking if plan.bound.needs_postgres_check or has_policy(plan, role)
        )
        while waiting:
            async with self._parts.judge.as_role(
                role, identity.claims_json, is_join=is_join
            ) as connection:
                while waiting:
                    plan = waiting.popleft()
                    await refuse_invalid_terms(connection, plan.bound)
                    if not has_policy(plan, role):
                        continue
                    sqlstate = await is_usable(connection, policy_statement(plan, role))
                    if sqlstate is not None:
                        self._refuse_policies(plan, role, sqlstate)
                        refused.append(plan)
                        break
        return refused

    def _refuse_policies(self, plan: PlannedBinding, role: str, sqlstate: str) -> None:
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
            raise not_streamable(parameters, POLICIES_READ_ABSENT)
        raise not_enabled(parameters)

    def _notes(self, planned: Sequence[PlannedBinding], role: str) -> list[str]:
        """Say once for each table what deletes will look like, where policies decide."""
        tables = {
            plan.entry.description.oid: plan.entry.description
            for plan in planned
            if plan.bound.parameters.event in {WILDCARD, "DELETE"} and has_policy(plan, role)
        }
        notes = [note_on_deletes(table, self._parts.delete_visibility) for table in tables.values()]
        return [note for note in notes if note is not None]

    def _log_once(self, event: str, table_oid: int, role: str, reason: str) -> None:
        """Write each reason once: clients can join, and be refused, without end."""
        if (event, table_oid, role, reason) not in self._logged:
            self._logged.add((event, table_oid, role, reason))
            _log.warning(event, table_oid=table_oid, role=role, reason=reason)

    # --- registration ---------------------------------------------------------------------------

    def _register(
        self,
        channel: SubscribedChannel,
        planned: Sequence[PlannedBinding],
        identity: Identity,
        position: StreamPosition,
    ) -> None:
        """File the bindings and hand over what is owed of the past; runs without an await."""
        lane = self._file(channel, planned, identity)
        self._begin(lane, channel, planned, position)

    def _file(
        self, channel: SubscribedChannel, planned: Sequence[PlannedBinding], identity: Identity
    ) -> Lane:
        self._members[channel] = {}
        return self._add_groups(channel, planned, identity)

    def _begin(
        self,
        lane: Lane,
        channel: SubscribedChannel,
        planned: Sequence[PlannedBinding],
        position: StreamPosition,
    ) -> list[Transaction]:
        """Give a channel its place; return what its client can not see, although it was read."""
        owed = self._parts.unsettled.not_seen_by(position.snapshot)
        oids = {plan.entry.description.oid for plan in planned}
        concerned = [transaction for transaction in owed if oids & _changed_tables(transaction)]
        self._parts.dispatcher.begin(lane, channel, position, concerned)
        return owed

    def _register_with_positions(
        self,
        channel: SubscribedChannel,
        planned: Sequence[PlannedBinding],
        identity: Identity,
        position: StreamPosition,
        positions: _Positions,
        *,
        may_resume: bool,
    ) -> None:
        """Do `_register` for who keeps positions, going on where its client was if that can be."""
        lane = self._file(channel, planned, identity)
        groups = self._members[channel]
        resuming, subscription = self._parts.resuming, positions.subscription
        decision: Resumption | str | None = "subscription_interrupted"
        if may_resume:
            decision = resuming.decide(
                positions.request, subscription, groups.keys(), position.insert_lsn
            )
        marks = resuming.add_marks(channel, lane, subscription, groups.keys())
        if isinstance(decision, Resumption):
            channel.proven = decision.proven
            self._parts.dispatcher.counters.resumes += 1
            self._parts.dispatcher.resume(lane, channel, decision.place)
            return
        owed = self._begin(lane, channel, planned, position)
        if decision is not None:
            marks.begin_with_resync(decision, owed)
        if owed and resuming.have_rights_changed_since(owed[0], groups):
            # What its client loads now is what the rights before showed.
            marks.rights_changed()

    def _register_successor(
        self,
        channel: SubscribedChannel,
        before: SubscribedChannel,
        planned: Sequence[PlannedBinding],
        identity: Identity,
        positions: _Positions | None,
    ) -> None:
        """File the bindings of a subscription that continues where another one ends."""
        lane = self._file(channel, planned, identity)
        if positions is not None:
            marks = self._parts.resuming.add_marks(
                channel, lane, positions.subscription, self._members[channel].keys()
            )
            marks.carry_on(before.marks)
        self._parts.dispatcher.succeed(lane, channel, self._lane_of(before), before)

    def _lane_of(self, channel: SubscribedChannel) -> Lane | None:
        groups = self._members.get(channel)
        return self._parts.dispatcher.lanes[next(iter(groups)).audience] if groups else None

    def _add_groups(
        self, channel: SubscribedChannel, planned: Sequence[PlannedBinding], identity: Identity
    ) -> Lane:
        # A channel has one lane for its life: order within it is order within the lane.
        lane = self._lane_of(channel) or self._parts.dispatcher.lane(
            identity.role, identity.claims_json, judged_terms(planned)
        )
        for plan in planned:
            group = self._group(lane, plan)
            ids = group.channels.get(channel, ())
            if plan.binding.id not in ids:
                group.channels[channel] = (*ids, plan.binding.id)
            self._members[channel][group] = None
        return lane

    def _group(self, lane: Lane, plan: PlannedBinding) -> BindingGroup:
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


def _positions(
    bindings: Sequence[ChangeBinding], parameters: Sequence[BindingParameters], identity: Identity
) -> _Positions | None:
    request = read_position_request(binding.parameters for binding in bindings)
    if request is None:
        return None
    return _Positions(request, subscription_fingerprint(identity, parameters))


def _changed_tables(transaction: Transaction) -> set[int]:
    return {relation.oid for relation in (*transaction.relations, *transaction.truncated)}
