"""Run the migrations: numbered files, one transaction each, recorded in a ledger.

Safe to run again, by several processes at once, and after a crash: each migration's transaction
holds an advisory lock, looks at the ledger under it, and records itself in the same transaction.
What the connected role may not do stays pending and is named in the report; a later run as a
stronger role does it.

`docs/howto/external-database.md` and `docs/howto/attach-supabase.md` describe it for operators.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import AsyncConnection, sql

from heliograph import limits
from heliograph.errors import (
    ConfigurationError,
    LocalProtocolError,
    StorageError,
    UnavailableError,
)
from heliograph.postgres.attached_tables import copy_supabase_realtime
from heliograph.postgres.database_rights import read_rights
from heliograph.postgres.migration_files import Migration, MigrationMode, migrations_of
from heliograph.postgres.migration_plan import (
    AttachSetting,
    MigrationPlan,
    MissingRight,
    StepState,
    check_ledger,
    plan,
    read_ledger,
    step_of,
)

__all__ = [
    "AttachSetting",
    "Connection",
    "MigrateOptions",
    "MigrationMode",
    "MigrationPlan",
    "MigrationReport",
    "MissingRight",
    "StepState",
    "migrate",
    "plan",
    "print_sql",
]

#: Key of the advisory lock: the letters "Heliogra".
_LOCK_KEY: Final = 0x48656C696F677261

_LOCK: Final = "select pg_catalog.pg_advisory_xact_lock(%s)"

_RECORD: Final = """
insert into heliograph.migrations (version, name, checksum) values (%s, %s, %s)
on conflict (version) do update set checksum = excluded.checksum, applied_at = pg_catalog.now()
"""

#: Concurrent changes of roles, which belong to the cluster: "tuple concurrently updated" has no
#: SQLSTATE of its own.
_CONCURRENT: Final = (
    psycopg.errors.InternalError_,
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)

_NOTE_EXISTING_TABLES: Final = (
    "tables that existed before in schema public keep their grants: GRANT what clients may use"
)
_NOTE_ATTACH_TRIGGERS: Final = (
    "no event triggers are installed in a project that is not ours: changes of policies and grants "
    "are found by comparing a fingerprint of the catalog with every judgement"
)


@dataclass(frozen=True, slots=True)
class MigrateOptions:
    """How to migrate.

    Attributes:
        attach: Whether the database is an existing Supabase project.
        lock_timeout_s: Seconds that one lock may be waited for.
    """

    attach: AttachSetting = AttachSetting.AUTO
    lock_timeout_s: float = limits.MIGRATION_LOCK_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a run did.

    Attributes:
        mode: Whose database it is.
        applied: Labels of the migrations that were run now.
        applied_before: Number of migrations that had been run before.
        missing: What the connected role could not do, and what that means.
        notes: Sentences for the operator.
    """

    mode: MigrationMode
    applied: tuple[str, ...]
    applied_before: int
    missing: tuple[MissingRight, ...]
    notes: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        """Whether a server can work with the database."""
        return not any(missing.is_essential for missing in self.missing)


#: What all of `postgres/` here takes; lets callers name it without importing the driver.
Connection: TypeAlias = AsyncConnection[Any]

_Action = Callable[[AsyncConnection[Any], float], Awaitable[tuple[str, ...]]]

_ACTIONS: Final[dict[str, _Action]] = {"copy_supabase_realtime": copy_supabase_realtime}


async def migrate(
    connection: AsyncConnection[Any], options: MigrateOptions | None = None
) -> MigrationReport:
    """Bring the database to this version's state, as far as the connected role may.

    Idempotent; concurrent runs wait for each other. When it is cancelled or fails, what was
    finished stays, and the next run goes on from there.

    Args:
        connection: An autocommit connection, not through a pooler in transaction mode.
        options: See `MigrateOptions`.

    Raises:
        ConfigurationError: As `plan`; or if a migration may not be run although its requirements
            seemed to hold.
        UnavailableError: If a lock was not to be had in time, or the connection was lost.
        StorageError: If PostgreSQL refused a migration.
        LocalProtocolError: If the connection is not in autocommit mode.
    """
    options = options or MigrateOptions()
    if not connection.autocommit:
        message = "migrations need an autocommit connection: they make their own transactions"
        raise LocalProtocolError(message)
    planned = await plan(connection, options.attach)
    applied: list[str] = []
    notes: list[str] = []
    for migration in migrations_of(planned.mode):
        try:
            async with asyncio.timeout(limits.MIGRATION_TIMEOUT_S):
                step_notes = await _run_step(connection, migration, options)
        except TimeoutError as error:
            message = f"migration {migration.label} got no answer from PostgreSQL"
            raise UnavailableError(message) from error
        except psycopg.Error as error:
            raise _translate(migration, error) from error
        if step_notes is not None:
            applied.append(migration.label)
            notes.extend(step_notes)
    after = await plan(connection, options.attach)
    notes.extend(await _closing_notes(connection, after, applied))
    return MigrationReport(
        mode=after.mode,
        applied=tuple(applied),
        applied_before=sum(step.state is StepState.APPLIED for step in planned.steps),
        missing=after.missing,
        notes=tuple(notes),
    )


def print_sql(mode: MigrationMode = MigrationMode.FRESH) -> str:
    """Return the SQL of all migrations of one mode, to be read or run by hand with psql.

    Each is wrapped in its transaction and records itself in the ledger, so that ``heliograph
    migrate`` afterwards finds nothing to do.
    """
    parts = [
        f"begin;\nset local search_path = '';\n\n{migration.text.rstrip()}\n\n"
        "insert into heliograph.migrations (version, name, checksum)\n"
        f"  values ({migration.version}, '{migration.name}', '{migration.checksum}');\ncommit;\n"
        for migration in migrations_of(mode)
    ]
    return "\n".join(parts)


async def _run_step(
    connection: AsyncConnection[Any], migration: Migration, options: MigrateOptions
) -> tuple[str, ...] | None:
    """Run one migration if it is due; return its notes, or None if it was not."""
    for attempt in range(limits.MIGRATION_ATTEMPTS_MAX):
        try:
            return await _run_step_once(connection, migration, options)
        except _CONCURRENT:
            # Another database of the cluster made or altered the same role at the same moment.
            if attempt + 1 == limits.MIGRATION_ATTEMPTS_MAX:
                raise
    return None


async def _run_step_once(
    connection: AsyncConnection[Any], migration: Migration, options: MigrateOptions
) -> tuple[str, ...] | None:
    async with connection.transaction():
        await _set_bounds(connection, options.lock_timeout_s)
        await connection.execute(_LOCK, (_LOCK_KEY,))
        ledger = await read_ledger(connection)
        check_ledger(ledger)
        rights = await read_rights(connection)
        step = step_of(migration, ledger.get(migration.version), rights)
        if step.state not in (StepState.PENDING, StepState.LOST):
            return None
        if migration.action is None:
            await connection.execute(migration.text.encode())
            await _record(connection, migration)
            return ()
    # An action makes its own transactions, one per table; it is idempotent and recorded last.
    notes = await _ACTIONS[migration.action](connection, options.lock_timeout_s)
    async with connection.transaction():
        await _record(connection, migration)
    return notes


async def _set_bounds(connection: AsyncConnection[Any], lock_timeout_s: float) -> None:
    settings = {
        "lock_timeout": f"{int(lock_timeout_s * 1000)}ms",
        "statement_timeout": f"{int(limits.MIGRATION_STATEMENT_TIMEOUT_S * 1000)}ms",
        "search_path": "",
    }
    for name, value in settings.items():
        await connection.execute(
            sql.SQL("set local {} = {}").format(sql.Identifier(name), sql.Literal(value))
        )


async def _record(connection: AsyncConnection[Any], migration: Migration) -> None:
    await connection.execute(_RECORD, (migration.version, migration.name, migration.checksum))


def _translate(
    migration: Migration, error: psycopg.Error
) -> ConfigurationError | UnavailableError | StorageError:
    what = f"migration {migration.label}"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        message = f"{what} waited too long for a lock; another session holds it: run it again"
        return UnavailableError(message)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        message = f"{what}: {error.diag.message_primary}"
        return ConfigurationError(message)
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        message = f"{what}: the connection to PostgreSQL was lost"
        return UnavailableError(message)
    message = f"{what} failed ({error.sqlstate}): {error.diag.message_primary}"
    return StorageError(message)


async def _closing_notes(
    connection: AsyncConnection[Any], after: MigrationPlan, applied: list[str]
) -> list[str]:
    if after.mode is MigrationMode.ATTACH:
        return [_NOTE_ATTACH_TRIGGERS]
    if not any(label.endswith("_default_privileges") for label in applied):
        return []
    cursor = await connection.execute(
        "select exists (select from pg_catalog.pg_class c"
        " where c.relnamespace = pg_catalog.to_regnamespace('public') and c.relkind in ('r', 'p'))"
    )
    row = await cursor.fetchone()
    return [_NOTE_EXISTING_TABLES] if row is not None and row[0] else []
