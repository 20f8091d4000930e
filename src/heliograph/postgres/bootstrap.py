"""What must be true of the database before a server starts on it, and what the server learns.

Order: the database is checked, migrated (or, in production, found to be migrated), the judging
login made or corrected, the publication checked.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from heliograph.config import Secret, Settings
from heliograph.core.channels.bearer import SERVICE_ROLE
from heliograph.errors import ConfigurationError
from heliograph.postgres.connecting import connect
from heliograph.postgres.database_facts import gather_replication_facts
from heliograph.postgres.external_check import check_database, require_usable
from heliograph.postgres.judge_login import ensure_judge_login, require_safe_login
from heliograph.postgres.migrate import AttachSetting, MigrateOptions, MigrationMode, migrate, plan
from heliograph.postgres.publication_check import FindingLevel, check_publication

_log = structlog.get_logger("heliograph.bootstrap")

_EVENT_TRIGGERS = """
select (select s.secret from heliograph.server_secret s)
 where exists (select from pg_catalog.pg_event_trigger t
                where t.evtname = 'heliograph_rights_changed' and t.evtenabled <> 'D')
"""

_BYPASSING = """
select rolname from pg_catalog.pg_roles
 where rolname = any(%s) and (rolbypassrls or rolsuper)
"""


@dataclass(frozen=True, slots=True)
class PreparedDatabase:
    """A database that a server can start on.

    Attributes:
        is_attached: Whether it is an existing Supabase project.
        publication: What clients may subscribe to.
        judge_conninfo: The judging login, with its password: never to be logged.
        other_judges: The same for roles that a login of their own judges: ``service_role``, where
            nobody could give it BYPASSRLS.
        stand_ins: For roles that pass by every policy: the role under which their filters are
            judged.
        must_poll: Whether changes must be read by polling the slot, because replication
            connections are refused.
        message_secret: What genuine messages of the event triggers begin with; None without them.
    """

    is_attached: bool
    publication: str
    judge_conninfo: str = field(repr=False)
    other_judges: dict[str, str] = field(repr=False)
    stand_ins: dict[str, str]
    must_poll: bool
    message_secret: bytes | None = field(repr=False)


async def prepare_database(settings: Settings, *, may_migrate: bool) -> PreparedDatabase:
    """Check, migrate and read what the server needs.

    Args:
        settings: Complete settings.
        may_migrate: Whether pending migrations are run; else they are an error.

    Raises:
        ConfigurationError: If the database can not be used as it is; says what to run.
        UnavailableError: If it does not answer.
    """
    findings = await check_database(settings)
    require_usable(findings)
    for finding in findings:
        _log.warning("database_finding", problem=finding.problem, remedy=finding.remedy)
    connection = await connect(settings.url_for_administration(), variable="DATABASE_URL")
    try:
        mode = await _bring_up_to_date(connection, settings, may_migrate=may_migrate)
        is_attached = mode is MigrationMode.ATTACH
        publication = settings.publication_name(is_attached=is_attached)
        await _check_publication(connection, publication, settings.allow_without_rls)
        judge_conninfo, other_judges = await _judges(connection, settings)
        return PreparedDatabase(
            is_attached=is_attached,
            publication=publication,
            judge_conninfo=judge_conninfo,
            other_judges=other_judges,
            stand_ins=await _stand_ins(connection, settings),
            must_poll=await _must_poll(settings),
            message_secret=await _message_secret(connection),
        )
    finally:
        await connection.close()


async def _bring_up_to_date(
    connection: AsyncConnection[TupleRow], settings: Settings, *, may_migrate: bool
) -> MigrationMode:
    attach = AttachSetting(settings.attach)
    if not may_migrate:
        planned = await plan(connection, attach)
        needed = [migration.label for migration in planned.pending if migration.is_essential]
        if needed:
            names = ", ".join(needed)
            message = f"the database is not up to date ({names}): run `heliograph migrate`"
            raise ConfigurationError(message)
        for migration in planned.pending:
            if migration.ensures is not None and planned.rights.holds(migration.ensures):
                # Somebody did by hand what it would do, as the advice says: nothing is lost.
                continue
            _log.warning(
                "migration_pending",
                migration=migration.label,
                lost=migration.without,
                remedy="run `heliograph migrate`",
            )
        return planned.mode
    report = await migrate(connection, MigrateOptions(attach=attach))
    for missing in report.missing:
        _log.warning("right_missing", missing=str(missing))
    if not report.is_usable:
        message = "the database lacks something essential: see `heliograph migrate --status`"
        raise ConfigurationError(message)
    return report.mode


async def _check_publication(
    connection: AsyncConnection[TupleRow], name: str, allow_without_rls: Collection[str]
) -> None:
    findings = await check_publication(connection, name, allow_without_rls=allow_without_rls)
    refusals = [f.reason for f in findings if f.level is FindingLevel.REFUSE_START]
    if refusals:
        message = "\n".join([f"publication {name} can not be served:", *refusals])
        raise ConfigurationError(message)
    for finding in findings:
        _log.warning("publication_finding", table=finding.table, reason=finding.reason)


async def _judges(
    connection: AsyncConnection[TupleRow], settings: Settings
) -> tuple[str, dict[str, str]]:
    """Return how to connect in order to judge, and the same for roles with a login of their own."""
    if settings.judge_url is not None:
        await _check_given_login(settings.judge_url, settings.roles)
        return settings.judge_url.reveal(), {}
    password = settings.judge_password
    if password is None:
        # Says which variable is missing.
        return settings.url_for_judging().reveal(), {}
    logins = await ensure_judge_login(connection, password.reveal(), settings.roles)
    others = {} if logins.service is None else {SERVICE_ROLE: logins.service.conninfo}
    return logins.judge.conninfo, others


async def _check_given_login(url: Secret, roles: Sequence[str]) -> None:
    given = await connect(url, variable="HELIOGRAPH_JUDGE_URL")
    try:
        if await require_safe_login(given, roles):
            _log.warning(
                "service_role_not_judged",
                reason="it has no BYPASSRLS, and the login of HELIOGRAPH_JUDGE_URL must not become"
                " it: who joins as service_role is refused",
            )
    finally:
        await given.close()


async def _stand_ins(connection: AsyncConnection[TupleRow], settings: Settings) -> dict[str, str]:
    cursor = await connection.execute(_BYPASSING, (list(settings.roles),))
    bypassing = [row[0] for row in await cursor.fetchall()]
    others = [role for role in settings.roles if role not in bypassing]
    preferred = "authenticated" if "authenticated" in others else next(iter(others), None)
    return {} if preferred is None else dict.fromkeys(bypassing, preferred)


async def _must_poll(settings: Settings) -> bool:
    if settings.reader != "auto":
        return settings.reader == "polling"
    facts = await gather_replication_facts(
        settings.url_for_replication(), variable="HELIOGRAPH_REPLICATION_URL"
    )
    return facts.failure is not None


async def _message_secret(connection: AsyncConnection[TupleRow]) -> bytes | None:
    cursor = await connection.execute(_EVENT_TRIGGERS)
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else str(row[0]).encode()
