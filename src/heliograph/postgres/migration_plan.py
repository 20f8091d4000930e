"""What a migration run would do: mode of the database, state of each migration, what is missing.

Reads only. The mode is decided once: as soon as a migration that belongs to one mode only is in
the ledger, that mode stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, assert_never

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from heliograph.errors import ConfigurationError
from heliograph.limits import POSTGRES_MAJOR_MIN
from heliograph.postgres.database_rights import DatabaseRights, read_rights
from heliograph.postgres.migration_files import (
    Migration,
    MigrationMode,
    load_migrations,
    migrations_of,
)

#: Reads pg_class with a snapshot of now. to_regclass() would answer from this session's cache,
#: which waiting for the advisory lock does not refresh: it missed the ledger of another run (seen).
_HAS_LEDGER: Final = """
select exists (select from pg_catalog.pg_class c
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'heliograph' and c.relname = 'migrations') as has_ledger
"""

#: The time as seconds: a database may have a DateStyle in which the driver can read none.
_LEDGER: Final = """
select version, name, checksum, extract(epoch from applied_at)::float8 as applied_unix_s
  from heliograph.migrations
"""

#: Database-local signs of a Supabase project. Roles alone say nothing: they belong to the cluster,
#: and the project may be the database beside this one.
_SIGNS: Final = """
select pg_catalog.to_regclass('auth.users') is not null as has_users,
       exists (select from pg_catalog.pg_namespace n
                 join pg_catalog.pg_roles o on o.oid = n.nspowner
                where n.nspname in ('auth', 'storage', 'realtime')
                  and o.rolname like 'supabase\\_%') as has_foreign_schema
"""


class AttachSetting(StrEnum):
    """Whether to treat the database as an existing Supabase project."""

    #: Look for ``auth.users`` that we did not make, and for schemas of ``supabase_…`` roles.
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class StepState(StrEnum):
    """Where one migration stands."""

    APPLIED = "applied"
    #: Will be run.
    PENDING = "pending"
    #: Was run, but what it ensured is gone: will be run again.
    LOST = "lost"
    #: Can not be run by the connected role.
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One row of ``heliograph.migrations``."""

    name: str
    checksum: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One migration and where it stands.

    Attributes:
        migration: The file.
        state: What would happen to it.
        applied_at: When it was run, None if never.
        reason: For a blocked one what is missing, else the empty string.
    """

    migration: Migration
    state: StepState
    applied_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class MissingRight:
    """Something that the connected role may not do.

    Attributes:
        what: What is not installed or not possible.
        reason: Which right is missing.
        lost: What that means for the server.
        remedy: What to run, and by whom.
        is_essential: Whether the database can not be served without it.
    """

    what: str
    reason: str
    lost: str
    remedy: str
    is_essential: bool


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What `migrate` would do.

    Attributes:
        mode: Whose database it is.
        rights: What the connected role may do.
        steps: Every migration of the mode, in order.
        missing: What will stay missing, in the same order.
    """

    mode: MigrationMode
    rights: DatabaseRights
    steps: tuple[PlannedStep, ...]
    missing: tuple[MissingRight, ...]

    @property
    def pending(self) -> tuple[Migration, ...]:
        """The migrations that would be run."""
        to_run = (StepState.PENDING, StepState.LOST)
        return tuple(step.migration for step in self.steps if step.state in to_run)


async def plan(
    connection: AsyncConnection[Any], attach: AttachSetting = AttachSetting.AUTO
) -> MigrationPlan:
    """Find out what `migrate` would do; changes nothing.

    Args:
        connection: An autocommit connection.
        attach: Whether it is an existing Supabase project.

    Raises:
        ConfigurationError: If PostgreSQL is too old, the ledger does not fit this version of
            Heliograph, the setting contradicts the database, or a role that tokens name is a
            superuser.
    """
    rights = await read_rights(connection)
    _check_server(rights)
    ledger = await read_ledger(connection)
    check_ledger(ledger)
    mode = await _decide_mode(connection, ledger, attach)
    _check_roles(rights)
    steps = tuple(
        step_of(migration, ledger.get(migration.version), rights)
        for migration in migrations_of(mode)
    )
    return MigrationPlan(mode, rights, steps, missing_rights(mode, steps, rights))


async def read_ledger(connection: AsyncConnection[Any]) -> dict[int, LedgerEntry]:
    """Return what was run, by version; empty if there is no ledger yet.

    Raises:
        ConfigurationError: If the connected role may not read it.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_HAS_LEDGER)
        row = await cursor.fetchone()
        if row is None or not row["has_ledger"]:
            return {}
        try:
            await cursor.execute(_LEDGER)
        except psycopg.errors.InsufficientPrivilege as cause:
            message = (
                f"the login {connection.info.user} may not read schema heliograph: use the login "
                "that ran `heliograph migrate` here first, or a superuser"
            )
            raise ConfigurationError(message) from cause
        return {
            entry["version"]: LedgerEntry(
                entry["name"],
                entry["checksum"],
                datetime.fromtimestamp(entry["applied_unix_s"], UTC),
            )
            for entry in await cursor.fetchall()
        }


def check_ledger(ledger: Mapping[int, LedgerEntry]) -> None:
    """Refuse a ledger that another version, or another hand, has written.

    Raises:
        ConfigurationError: If it names a migration that we do not have, or one with another text.
    """
    known = {migration.version: migration for migration in load_migrations()}
    for version, entry in sorted(ledger.items()):
        migration = known.get(version)
        if migration is None:
            message = (
                f"the database has migration {version:04}_{entry.name}, which this version of "
                "heliograph does not know: it was migrated by a newer one; upgrade heliograph"
            )
            raise ConfigurationError(message)
        if migration.checksum != entry.checksum:
            message = (
                f"migration {migration.label} was run with another text than this version of "
                "heliograph has; install the version that made this database, or a later release"
            )
            raise ConfigurationError(message)


def step_of(migration: Migration, entry: LedgerEntry | None, rights: DatabaseRights) -> PlannedStep:
    """Tell where one migration stands, given its ledger entry and the rights of now."""
    applied_at = entry.applied_at if entry is not None else None
    if entry is not None and (migration.ensures is None or rights.holds(migration.ensures)):
        return PlannedStep(migration, StepState.APPLIED, applied_at, "")
    lacking = [reason for need in migration.requires if (reason := rights.lacks(need)) is not None]
    if lacking:
        return PlannedStep(migration, StepState.BLOCKED, applied_at, "; ".join(lacking))
    state = StepState.PENDING if entry is None else StepState.LOST
    return PlannedStep(migration, state, applied_at, "")


def missing_rights(
    mode: MigrationMode, steps: tuple[PlannedStep, ...], rights: DatabaseRights
) -> tuple[MissingRight, ...]:
    """Return what is missing: blocked migrations, roles of a project, the replication right."""
    blocked = [
        MissingRight(
            what=step.migration.title,
            reason=step.reason,
            lost=step.migration.without,
            remedy=_remedy(step.migration, steps, rights),
            is_essential=step.migration.is_essential,
        )
        for step in steps
        if step.state is StepState.BLOCKED
    ]
    if not rights.may_replicate:
        blocked.append(
            MissingRight(
                what="reading changes",
                reason=f"{rights.user_name} has no REPLICATION",
                lost="a server that connects as this role can not read any change",
                remedy=f"as a superuser: ALTER ROLE {rights.user_name} REPLICATION;",
                is_essential=False,
            )
        )
    if mode is MigrationMode.ATTACH:
        blocked.extend(_missing_in_project(rights))
    return tuple(blocked)


def _remedy(migration: Migration, steps: tuple[PlannedStep, ...], rights: DatabaseRights) -> str:
    """Return what to run for a blocked migration, which may wait for the roles and nothing else."""
    lacking = [need for need in migration.requires if rights.lacks(need) is not None]
    remedies = [step.migration.remedy for step in steps if step.migration.ensures == "roles"]
    remedy = remedies[0] if lacking == ["roles"] and remedies else migration.remedy
    return remedy.format(database=rights.database_name, user=rights.user_name)


def _missing_in_project(rights: DatabaseRights) -> list[MissingRight]:
    """An attached project must bring its own roles: we make none there."""
    return [
        MissingRight(
            what=f"role {name}",
            reason="the project does not have it",
            lost=f"tokens of role {name} are refused",
            remedy=f"CREATE ROLE {name} NOLOGIN NOINHERIT;",
            is_essential=name != "service_role",
        )
        for name in ("anon", "authenticated", "service_role")
        if name not in rights.roles
    ]


def _check_server(rights: DatabaseRights) -> None:
    if rights.version < POSTGRES_MAJOR_MIN * 10_000:
        message = f"PostgreSQL {POSTGRES_MAJOR_MIN} or newer is needed, this is {rights.version}"
        raise ConfigurationError(message)


def _check_roles(rights: DatabaseRights) -> None:
    for name, role in rights.roles.items():
        if role.is_superuser or (role.has_bypassrls and name in ("anon", "authenticated")):
            message = (
                f"role {name} exists and is a superuser or passes row level security; everybody "
                f"with a token would: ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS;"
            )
            raise ConfigurationError(message)


async def _decide_mode(
    connection: AsyncConnection[Any], ledger: Mapping[int, LedgerEntry], attach: AttachSetting
) -> MigrationMode:
    recorded = _recorded_mode(ledger)
    if recorded is None:
        return await _detect_mode(connection, attach)
    wanted = {AttachSetting.ALWAYS: MigrationMode.ATTACH, AttachSetting.NEVER: MigrationMode.FRESH}
    if wanted.get(attach, recorded) is not recorded:
        message = f"this database was set up in mode {recorded}; attach={attach} contradicts it"
        raise ConfigurationError(message)
    return recorded


def _recorded_mode(ledger: Mapping[int, LedgerEntry]) -> MigrationMode | None:
    for migration in load_migrations():
        if migration.version in ledger and len(migration.modes) == 1:
            return next(iter(migration.modes))
    return None


async def _detect_mode(connection: AsyncConnection[Any], attach: AttachSetting) -> MigrationMode:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SIGNS)
        signs = await cursor.fetchone()
    is_project = signs is not None and (signs["has_users"] or signs["has_foreign_schema"])
    match attach:
        case AttachSetting.AUTO:
            return MigrationMode.ATTACH if is_project else MigrationMode.FRESH
        case AttachSetting.ALWAYS:
            return MigrationMode.ATTACH
        case AttachSetting.NEVER:
            if is_project:
                message = (
                    "auth.users or a schema of a supabase role exists here and is not ours; "
                    "attach=never would alter it: use attach=always"
                )
                raise ConfigurationError(message)
            return MigrationMode.FRESH
        case _:
            assert_never(attach)
