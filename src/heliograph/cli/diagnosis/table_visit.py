"""Going through the published tables, and trying their policies on rows that they have."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from heliograph import limits
from heliograph.cli.diagnosis.check import Check, CheckName, skip
from heliograph.cli.diagnosis.policies import judge_trials
from heliograph.cli.diagnosis.tables import (
    TableSight,
    judge_identities,
    judge_publication,
    judge_sights,
)
from heliograph.config import Settings
from heliograph.core.channels.bearer import SERVICE_ROLE
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.errors import HeliographError
from heliograph.ports.identity import Identity
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.catalog import Catalog, PublishedTable
from heliograph.postgres.judge import Judge
from heliograph.postgres.policy_trial import (
    PolicyTrial,
    TrialIdentity,
    sample_rows,
    try_policies,
)
from heliograph.postgres.publication_check import (
    FindingLevel,
    PublicationFinding,
    PublicationTopic,
    check_publication,
)
from heliograph.postgres.publishable_table import TableState, read_table
from heliograph.server.delivery.serving import ServingRules, why_withheld
from heliograph.server.delivery.tables import TableEntry

#: Somebody who is in no database: policies that look the caller up find nothing.
_SAMPLE_CLAIMS: Final[Mapping[str, object]] = {
    "sub": "00000000-0000-4000-8000-000000000000",
    "aud": "authenticated",
    "email": "nobody@example.com",
    "app_metadata": {},
    "user_metadata": {},
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """One table with what the roles see of it."""

    table: PublishedTable
    sight: TableSight


@dataclass(slots=True, kw_only=True)
class TableVisit:
    """One way through the tables; `run` takes it.

    Attributes:
        settings: What could be read of the settings.
        publication: Its name.
        roles: Existing roles that tokens may name, without ``service_role``.
        bearer: Who the given token stands for; None without one.
        may_judge: Whether the judging login can be used.
        checks: Gets what is found, piece by piece: what failed later does not take it away.
    """

    settings: Settings
    publication: str
    roles: Sequence[str]
    bearer: Identity | None
    may_judge: bool
    checks: list[Check]
    _findings: Sequence[PublicationFinding] = field(default=(), init=False)

    async def run(self, admin: AdminDatabase) -> None:
        """Look at everything.

        Raises:
            UnavailableError: If the database fails meanwhile.
        """
        async with admin.connection() as connection:
            self._findings = await check_publication(
                connection, self.publication, allow_without_rls=self.settings.allow_without_rls
            )
            tables = await Catalog(self.publication).published_tables(connection)
        names = [f"{table.schema}.{table.name}" for table in tables]
        self.checks += judge_publication(self.publication, self._findings, names)
        if any(
            finding.level is FindingLevel.REFUSE_START and finding.table is None
            for finding in self._findings
        ):
            return
        seen = [await self._look_at(admin, table) for table in tables]
        found = [each for each in seen if each is not None]
        sights = [each.sight for each in found]
        self.checks += judge_identities(sights, broken=self._tables_of(PublicationTopic.IDENTITY))
        self.checks += judge_sights(sights, explained=self._unserved())
        self.checks += await self._try(admin, found)

    def _tables_of(self, topic: PublicationTopic) -> set[str]:
        return {f.table for f in self._findings if f.topic is topic and f.table is not None}

    def _unserved(self) -> set[str]:
        return {
            f.table
            for f in self._findings
            if f.table is not None
            and (f.level is not FindingLevel.WARNING or f.topic is PublicationTopic.ROW_SECURITY)
        }

    async def _look_at(self, admin: AdminDatabase, table: PublishedTable) -> _Seen | None:
        catalog = Catalog(self.publication)
        async with admin.connection() as connection:
            state = await read_table(connection, table.oid)
            description = await catalog.describe(connection, table.oid)
            rights = {
                role: known
                for role in self.roles
                if (known := await catalog.rights(connection, table.oid, role)) is not None
            }
        if state is None or description is None:
            return None  # dropped meanwhile
        rules = ServingRules(frozenset(self.settings.allow_without_rls))
        entry = TableEntry(description, rights)
        reasons = {role: why_withheld(entry, role, rules) for role in rights}
        withheld = {role: reason for role, reason in reasons.items() if reason is not None}
        return _Seen(table, TableSight(state.relation.label, _identity_of(state), withheld, rights))

    async def _try(self, admin: AdminDatabase, seen: Sequence[_Seen]) -> list[Check]:
        asked = [
            each
            for each in seen
            if any(self._is_asked(each, identity) for identity in self._identities())
        ]
        if asked and not self.may_judge:
            return _not_tried("the judging login can not be used: see judge-login")
        trials: list[PolicyTrial] = []
        if asked:
            judge = Judge(
                self.settings.url_for_judging().reveal(),
                connections_max=1,
                timeout_s=self.settings.bounds.judgement_timeout_s,
            )
            try:
                await judge.open()
            except HeliographError as error:
                return _not_tried(str(error))
            try:
                for each in asked[: limits.DOCTOR_TABLES_MAX]:
                    trials += await self._try_table(admin, judge, each)
            finally:
                await judge.close()
        return judge_trials(trials, left_out=max(0, len(asked) - limits.DOCTOR_TABLES_MAX))

    async def _try_table(
        self, admin: AdminDatabase, judge: Judge, seen: _Seen
    ) -> list[PolicyTrial]:
        rows: Sequence[str] = ()
        # Without SELECT the owner's login has no sample; then the policies are tried on no row.
        with suppress(HeliographError):
            async with admin.connection() as connection:
                rows = await sample_rows(connection, seen.table)
        return [
            await try_policies(judge, seen.table, seen.sight.rights[identity.role], rows, identity)
            for identity in self._identities()
            if self._is_asked(seen, identity)
        ]

    def _is_asked(self, seen: _Seen, identity: TrialIdentity) -> bool:
        rights = seen.sight.rights.get(identity.role)
        if rights is None or identity.role in seen.sight.withheld:
            return False
        return not (rights.shows_all or rights.shows_none)

    def _identities(self) -> list[TrialIdentity]:
        found = [TrialIdentity(role, role, _claims_of(role)) for role in self.roles]
        bearer = self.bearer
        if bearer is not None and bearer.role != SERVICE_ROLE:
            found.append(TrialIdentity("the given token", bearer.role, bearer.claims_json))
        return found


def _not_tried(why: str) -> list[Check]:
    return [skip(CheckName.POLICY_ERRORS, why), skip(CheckName.POLICY_SPEED, why)]


def _claims_of(role: str) -> str:
    claims: dict[str, object] = {"role": role}
    if role != "anon":
        claims.update(_SAMPLE_CLAIMS)
    return msgspec.json.encode(claims).decode()


def _identity_of(state: TableState) -> ReplicaIdentity:
    """Return the replica identity; of a partitioned table the least of its partitions."""
    lesser = [w.identity for w in state.writers if w.identity is not ReplicaIdentity.FULL]
    return next(iter(lesser), ReplicaIdentity.FULL)
