"""Going through a database step by step; what one step can not find out does not stop the next.

Nothing is changed in it: statements only read, and policies are tried in read-only transactions
that are rolled back.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from heliograph.cli.diagnosis.check import Check, CheckName, fail, skip
from heliograph.cli.diagnosis.clock import ClockReading, judge_clock
from heliograph.cli.diagnosis.database import (
    judge_findings,
    judge_judge_login,
    judge_migrations,
    judge_no_reach,
    judge_reach,
    judge_roles,
)
from heliograph.cli.diagnosis.slots import judge_slots
from heliograph.cli.diagnosis.table_visit import TableVisit
from heliograph.config import JUDGE_LOGIN, Settings
from heliograph.core.channels.bearer import SERVICE_ROLE
from heliograph.errors import ConfigurationError, HeliographError
from heliograph.ports.clock import Clock
from heliograph.ports.identity import Identity
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.connecting import connect
from heliograph.postgres.database_facts import (
    DatabaseFacts,
    ReplicationFacts,
    gather_database_facts,
    gather_replication_facts,
)
from heliograph.postgres.database_rights import existing_roles
from heliograph.postgres.external_check import judge_database
from heliograph.postgres.judge_login import require_safe_login, verify_judge_login
from heliograph.postgres.migrate import AttachSetting, MigrationMode, plan
from heliograph.postgres.slot_usage import read_clock, read_slots


@dataclass(slots=True)
class DatabaseVisit:
    """One way through a database; `run` takes it.

    Attributes:
        settings: What could be read of the settings.
        clock: This machine's.
        server_answers: Whether a server of ours answered.
        bearer: Who the given token stands for; policies are tried as him, too.
        checks: What was found so far.
        roles: Which of HELIOGRAPH_ROLES exist; None if it could not be asked.
    """

    settings: Settings
    clock: Clock
    server_answers: bool
    bearer: Identity | None
    checks: list[Check] = field(default_factory=list[Check])
    roles: Collection[str] | None = None

    async def run(self) -> None:
        """Find out what can be found out; raises nothing that a database can cause."""
        url = self.settings.database_url
        if url is None:
            text = "without DATABASE_URL nothing can be said of database, slots, tables, policies"
            self.checks.append(skip(CheckName.DATABASE_REACH, text))
            return
        try:
            facts = await gather_database_facts(url, slot_name=self.settings.slot)
        except HeliographError as error:
            self.checks.append(judge_no_reach(str(error)))
            return
        self.checks.append(judge_reach(facts))
        await self._look_at_replication(facts)
        admin = AdminDatabase(url.reveal(), connections_max=1)
        try:
            await admin.open()
        except HeliographError as error:
            self.checks.append(judge_no_reach(str(error)))
            return
        try:
            await self._look_around(admin)
        finally:
            await admin.close()

    async def _look_around(self, admin: AdminDatabase) -> None:
        async with self._step(CheckName.CLOCK_DATABASE), admin.connection() as connection:
            asked_s = self.clock.unix_s()
            told_s = await read_clock(connection)
            reading = ClockReading(asked_s, self.clock.unix_s(), told_s)
            self.checks.append(judge_clock(CheckName.CLOCK_DATABASE, "PostgreSQL", reading))
        async with self._step(CheckName.SLOT), admin.connection() as connection:
            slots = await read_slots(connection)
            ours = self.settings.slot
            self.checks += judge_slots(slots, ours=ours, server_answers=self.server_answers)
        async with self._step(CheckName.ROLES), admin.connection() as connection:
            self.roles = await existing_roles(connection, self.settings.roles)
            self.checks.append(judge_roles(self.settings.roles, self.roles))
        publication = await self._look_at_migrations(admin)
        may_judge = await self._look_at_judge_login(admin)
        async with self._step(CheckName.PUBLICATION):
            tables = TableVisit(
                settings=self.settings,
                publication=publication,
                roles=self._judged_roles(),
                bearer=self.bearer,
                may_judge=may_judge,
                checks=self.checks,
            )
            await tables.run(admin)

    @asynccontextmanager
    async def _step(self, name: CheckName) -> AsyncGenerator[None]:
        """Let a step that fails leave a line instead of ending the visit."""
        try:
            yield
        except ConfigurationError as error:
            text = "change what it names, then ask again"
            self.checks.append(fail(name, str(error), text))
        except HeliographError as error:
            self.checks.append(skip(name, f"could not be looked at: {error}"))

    async def _look_at_replication(self, facts: DatabaseFacts) -> None:
        settings = self.settings
        given = settings.replication_url is not None
        variable = "HELIOGRAPH_REPLICATION_URL" if given else "DATABASE_URL"
        failure: str | None = None
        try:
            replication = await gather_replication_facts(
                settings.url_for_replication(), variable=variable
            )
        except HeliographError as error:
            failure = str(error)
            # Nothing is known of that login; the rest of the database is judged all the same.
            replication = ReplicationFacts(
                login="",
                may_replicate=True,
                system_identifier=None,
                database=facts.database,
                failure=None,
            )
        findings = judge_database(
            facts, replication, slot_name=settings.slot, reader=settings.reader
        )
        self.checks += judge_findings(findings, replication_failure=failure)

    async def _look_at_migrations(self, admin: AdminDatabase) -> str:
        """Return the name of the publication that a server would serve from."""
        is_attached = self.settings.attach == "always"
        async with self._step(CheckName.MIGRATIONS), admin.connection() as connection:
            planned = await plan(connection, AttachSetting(self.settings.attach))
            is_attached = planned.mode is MigrationMode.ATTACH
            pending = [
                migration
                for migration in planned.pending
                if migration.ensures is None or not planned.rights.holds(migration.ensures)
            ]
            self.checks += judge_migrations(pending, planned.missing)
        return self.settings.publication_name(is_attached=is_attached)

    async def _look_at_judge_login(self, admin: AdminDatabase) -> bool:
        """Return whether policies can be asked."""
        settings = self.settings
        if settings.judge_url is None and settings.judge_password is None:
            text = "neither HELIOGRAPH_JUDGE_URL nor HELIOGRAPH_JWT_SECRET tells how to log in"
            self.checks.append(skip(CheckName.JUDGE_LOGIN, text))
            return False
        is_ours = settings.judge_url is None
        user = JUDGE_LOGIN if is_ours else "the login of HELIOGRAPH_JUDGE_URL"
        exists, problems = True, list[str]()
        if is_ours:
            async with self._step(CheckName.JUDGE_LOGIN), admin.connection() as connection:
                exists = JUDGE_LOGIN in await existing_roles(connection, [JUDGE_LOGIN])
                if exists:
                    problems += await verify_judge_login(
                        connection, JUDGE_LOGIN, self._judged_roles()
                    )
        if exists:
            problems += await self._try_judge_login(is_ours=is_ours)
        self.checks.append(judge_judge_login(user, problems, is_ours=is_ours, exists=exists))
        return exists and not problems

    def _judged_roles(self) -> list[str]:
        """Return the roles that exist, that tokens may name, and that policies bind."""
        known = self.roles or ()
        return [role for role in self.settings.roles if role in known and role != SERVICE_ROLE]

    async def _try_judge_login(self, *, is_ours: bool) -> list[str]:
        """Return why the login can not connect, or must not judge."""
        try:
            connection = await connect(
                self.settings.url_for_judging(), variable="HELIOGRAPH_JUDGE_URL"
            )
            async with connection:
                if not is_ours:
                    await require_safe_login(connection, self.settings.roles)
        except HeliographError as error:
            text = str(error)
            return [text.removeprefix("HELIOGRAPH_JUDGE_URL: ") if is_ours else text]
        return []
