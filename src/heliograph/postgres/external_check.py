"""Checking a database that is not ours before it is used, and saying what to run to fix it.

`judge_database` is pure: facts in, findings out. `check_database` gathers the facts and judges
them; `require_usable` turns what is fatal into one error.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from heliograph.config import Reader, Settings
from heliograph.errors import ConfigurationError
from heliograph.limits import POSTGRES_MAJOR_MIN
from heliograph.postgres.database_facts import (
    DatabaseFacts,
    ReplicationFacts,
    gather_database_facts,
    gather_replication_facts,
)


class Severity(StrEnum):
    """Whether a finding forbids to go on."""

    FATAL = "fatal"
    WARNING = "warning"


class Topic(StrEnum):
    """What a finding is about; the words are stable, the doctor shows them."""

    VERSION = "postgres-version"
    PRIMARY = "database-primary"
    WAL_LEVEL = "wal-level"
    SLOT_WAL_LIMIT = "slot-wal-limit"
    SYNCHRONOUS_COMMIT = "synchronous-commit"
    POOLER = "connection-pooler"
    REPLICATION_RIGHT = "replication-right"
    REPLICATION_CONNECTION = "replication-connection"
    SLOT_OWNER = "slot-owner"
    SLOT_LOST = "slot-lost"
    SLOT_ROOM = "slot-room"
    SENDER_ROOM = "sender-room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about a database that should be changed.

    Attributes:
        topic: What it is about.
        severity: Whether Heliograph can go on without the change.
        problem: What was expected and what was found.
        remedy: What to run or set.
    """

    topic: Topic
    severity: Severity
    problem: str
    remedy: str

    def describe(self) -> str:
        """Return problem and remedy in two lines."""
        return f"{self.problem}\n    {self.remedy}"


async def check_database(settings: Settings) -> list[Finding]:
    """Check the database of the settings; nothing in it is changed.

    Returns:
        Everything that should be changed, the fatal things first; empty if all is well.

    Raises:
        ConfigurationError: If a login or the database is refused.
        UnavailableError: If the server does not answer; try again later.
        StorageError: If it answers something unexpected.
    """
    variable = "DATABASE_URL" if settings.replication_url is None else "HELIOGRAPH_REPLICATION_URL"
    database = await gather_database_facts(
        settings.url_for_administration(), slot_name=settings.slot
    )
    replication = await gather_replication_facts(settings.url_for_replication(), variable=variable)
    return judge_database(database, replication, slot_name=settings.slot, reader=settings.reader)


def require_usable(findings: Iterable[Finding]) -> None:
    """Raise one error that lists every fatal finding with its remedy.

    Raises:
        ConfigurationError: If there is a fatal finding.
    """
    fatal = [finding for finding in findings if finding.severity is Severity.FATAL]
    if not fatal:
        return
    lines = [f"  {finding.describe()}" for finding in fatal]
    message = "\n".join(["the database can not be used as it is:", *lines])
    raise ConfigurationError(message)


def judge_database(
    database: DatabaseFacts, replication: ReplicationFacts, *, slot_name: str, reader: Reader
) -> list[Finding]:
    """Return what should be changed, the fatal things first.

    Args:
        database: From `gather_database_facts`.
        replication: From `gather_replication_facts`.
        slot_name: Name of our slot.
        reader: With ``streaming`` a refused replication connection is fatal; otherwise the slot
            can be polled through SQL, and it is a warning.
    """
    findings = [
        *_judge_server(database),
        *_judge_connection(database, replication, reader),
        *_judge_slot(database, slot_name),
        *_judge_room(database, reader),
    ]
    return sorted(findings, key=lambda finding: finding.severity is not Severity.FATAL)


def _fatal(topic: Topic, problem: str, remedy: str) -> Finding:
    return Finding(topic=topic, severity=Severity.FATAL, problem=problem, remedy=remedy)


def _warning(topic: Topic, problem: str, remedy: str) -> Finding:
    return Finding(topic=topic, severity=Severity.WARNING, problem=problem, remedy=remedy)


def _judge_server(database: DatabaseFacts) -> Iterator[Finding]:
    major = database.version_number // 10_000
    if major < POSTGRES_MAJOR_MIN:
        yield _fatal(
            Topic.VERSION,
            f"PostgreSQL {POSTGRES_MAJOR_MIN} or newer is needed; this is {major}",
            f"upgrade the server to {POSTGRES_MAJOR_MIN} or newer (pg_upgrade)",
        )
    if database.is_in_recovery:
        yield _fatal(
            Topic.PRIMARY,
            "the server is a standby; migrations and the publication need the primary",
            "let DATABASE_URL point to the primary",
        )
    if database.wal_level != "logical":
        yield _fatal(
            Topic.WAL_LEVEL,
            f"wal_level must be logical; it is {database.wal_level}",
            "run: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL (Amazon RDS:"
            " rds.logical_replication = 1, Google Cloud SQL: cloudsql.logical_decoding = on, in"
            " the parameters of the instance)",
        )
    if database.slot_wal_keep_mb < 0:
        yield _warning(
            Topic.SLOT_WAL_LIMIT,
            "max_slot_wal_keep_size has no limit: while Heliograph is stopped, its slot keeps WAL"
            " until the disk is full",
            "run: ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();",
        )
    if database.synchronous_commit == "off":
        yield _warning(
            Topic.SYNCHRONOUS_COMMIT,
            "synchronous_commit is off: changes arrive 0.1 to 0.4 s after their commit",
            "run: ALTER SYSTEM SET synchronous_commit = 'on', or at least"
            " ALTER SYSTEM SET wal_writer_delay = '10ms'; then SELECT pg_reload_conf();",
        )


def _judge_connection(
    database: DatabaseFacts, replication: ReplicationFacts, reader: Reader
) -> Iterator[Finding]:
    if not database.has_session:
        yield _fatal(
            Topic.POOLER,
            "DATABASE_URL leads through a pooler in transaction mode: settings of a session are"
            " lost or seen by others",
            "use the direct address of the server (Supabase: port 5432 instead of 6543), or the"
            " pooler in session mode",
        )
    if not replication.may_replicate:
        login = replication.login.replace('"', '""')
        yield _fatal(
            Topic.REPLICATION_RIGHT,
            f"the login {replication.login} may not replicate",
            f'run: ALTER ROLE "{login}" REPLICATION; (Amazon RDS:'
            f' GRANT rds_replication TO "{login}";)',
        )
    elif replication.failure is not None and not _has_sender(database):
        return  # that is why, and _judge_room says so
    elif replication.failure is not None:
        finding = _fatal if reader == "streaming" else _warning
        otherwise = "" if reader == "streaming" else "; the slot will be polled, which is slower"
        yield finding(
            Topic.REPLICATION_CONNECTION,
            f"no replication connection: {replication.failure}{otherwise}",
            "let HELIOGRAPH_REPLICATION_URL be the direct address of the server, without a pooler,"
            " and allow it in pg_hba.conf",
        )
    elif _is_another(database, replication):
        yield _fatal(
            Topic.REPLICATION_CONNECTION,
            f"HELIOGRAPH_REPLICATION_URL leads to database {replication.database} of another"
            f" server, or to another database, than DATABASE_URL ({database.database})",
            "let both name the same database of the same server",
        )


def _is_another(database: DatabaseFacts, replication: ReplicationFacts) -> bool:
    if database.database != replication.database:
        return True
    identifiers = {database.system_identifier, replication.system_identifier} - {None}
    return len(identifiers) > 1


def _judge_slot(database: DatabaseFacts, slot_name: str) -> Iterator[Finding]:
    slot = database.slot
    if slot is None:
        return
    if slot.plugin != "pgoutput" or slot.database != database.database:
        yield _fatal(
            Topic.SLOT_OWNER,
            f"the replication slot {slot_name} belongs to something else (plugin {slot.plugin},"
            f" database {slot.database})",
            "set HELIOGRAPH_SLOT to a name of its own for this database",
        )
    elif slot.wal_status == "lost":
        yield _warning(
            Topic.SLOT_LOST,
            f"the replication slot {slot_name} is lost: its WAL has been removed; subscribers will"
            " be told to read anew",
            "raise max_slot_wal_keep_size, or stop Heliograph for shorter times",
        )


def _has_sender(database: DatabaseFacts) -> bool:
    senders_of_others = database.senders_used
    if database.slot is not None and database.slot.is_active:
        senders_of_others -= 1  # the reader of our slot, which we will take over
    return senders_of_others < database.senders_max


def _judge_room(database: DatabaseFacts, reader: Reader) -> Iterator[Finding]:
    if database.slot is None and database.slots_used >= database.slots_max:
        yield _fatal(
            Topic.SLOT_ROOM,
            f"no free replication slot: {database.slots_used} of {database.slots_max} are used",
            "drop one that nobody needs (the view pg_replication_slots lists them), or"
            f" run: ALTER SYSTEM SET max_replication_slots = {database.slots_max + 5}; then"
            " restart PostgreSQL",
        )
    if reader != "polling" and not _has_sender(database):
        finding = _fatal if reader == "streaming" else _warning
        otherwise = "" if reader == "streaming" else "; until the next start the slot is polled"
        yield finding(
            Topic.SENDER_ROOM,
            f"no free WAL sender: all {database.senders_max} are used{otherwise}",
            f"run: ALTER SYSTEM SET max_wal_senders = {database.senders_max + 5}; then restart"
            " PostgreSQL",
        )
