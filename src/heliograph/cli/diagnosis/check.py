"""One line of the report, the names that lines have, and the page of each name.

Names and pages are stable: people look for them, scripts compare them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Where the pages stand in the repository.
PAGES_FOLDER: Final = "docs/troubleshooting"


class CheckStatus(StrEnum):
    """What a check found."""

    OK = "ok"
    #: It works, but somebody will be surprised.
    WARN = "warn"
    FAIL = "fail"
    #: It could not be looked at; another line, or its remedy, says why.
    SKIP = "skip"


class CheckName(StrEnum):
    """What is looked at, in the order of the report."""

    ENVIRONMENT_MISSING = "environment-missing"
    ENVIRONMENT_MALFORMED = "environment-malformed"
    ENVIRONMENT_UNKNOWN = "environment-unknown"
    API_KEYS = "api-keys"
    KEY_SET = "key-set"
    TOKEN = "token"  # noqa: S105 - the name of a check
    ALLOWED_ORIGINS = "allowed-origins"
    ORIGIN = "origin"
    STATE_FOLDER = "state-folder"
    DATABASE_REACH = "database-reach"
    POSTGRES_VERSION = "postgres-version"
    DATABASE_PRIMARY = "database-primary"
    WAL_LEVEL = "wal-level"
    SYNCHRONOUS_COMMIT = "synchronous-commit"
    CONNECTION_POOLER = "connection-pooler"
    REPLICATION_RIGHT = "replication-right"
    REPLICATION_CONNECTION = "replication-connection"
    SENDER_ROOM = "sender-room"
    SLOT_ROOM = "slot-room"
    SLOT_OWNER = "slot-owner"
    SLOT = "slot"
    SLOT_LOST = "slot-lost"
    SLOT_LAG = "slot-lag"
    SLOT_WAL_LIMIT = "slot-wal-limit"
    OTHER_SLOTS = "other-slots"
    MIGRATIONS = "migrations"
    ROLES = "roles"
    JUDGE_LOGIN = "judge-login"
    PUBLICATION = "publication"
    TABLE_SCOPE = "table-scope"
    TABLE_STORAGE = "table-storage"
    TABLE_KEY = "table-key"
    TABLE_IDENTITY = "table-identity"
    TABLE_PARTITIONS = "table-partitions"
    TABLE_COLUMNS = "table-columns"
    TABLE_ROW_FILTER = "table-row-filter"
    TABLE_ROW_SECURITY = "table-row-security"
    TABLE_GRANTS = "table-grants"
    POLICIES_MISSING = "policies-missing"
    POLICY_ERRORS = "policy-errors"
    POLICY_SPEED = "policy-speed"
    CLOCK_DATABASE = "clock-database"
    CLOCK_SERVER = "clock-server"
    SERVER_PORT = "server-port"
    SERVER_READY = "server-ready"
    SERVER_CHANNELS = "server-channels"
    SERVER_SLOW_CLIENTS = "server-slow-clients"
    EVENT_ORDERING = "event-ordering"

    @property
    def page(self) -> str:
        """The page about it, from the top of the repository."""
        return f"{PAGES_FOLDER}/{_PAGE_OF[self]}.md"


_PAGES: Final[dict[str, tuple[CheckName, ...]]] = {
    "settings": (
        CheckName.ENVIRONMENT_MISSING,
        CheckName.ENVIRONMENT_MALFORMED,
        CheckName.ENVIRONMENT_UNKNOWN,
    ),
    "keys": (CheckName.API_KEYS, CheckName.KEY_SET),
    "token-refused": (CheckName.TOKEN,),
    "origin-refused": (CheckName.ALLOWED_ORIGINS, CheckName.ORIGIN),
    "clients-load-anew": (CheckName.STATE_FOLDER,),
    "database-unreachable": (
        CheckName.DATABASE_REACH,
        CheckName.POSTGRES_VERSION,
        CheckName.DATABASE_PRIMARY,
    ),
    "wal-level": (CheckName.WAL_LEVEL,),
    "replication-refused": (
        CheckName.CONNECTION_POOLER,
        CheckName.REPLICATION_RIGHT,
        CheckName.REPLICATION_CONNECTION,
        CheckName.SENDER_ROOM,
        CheckName.SLOT_ROOM,
        CheckName.SLOT_OWNER,
    ),
    "slot": (CheckName.SLOT, CheckName.SLOT_LOST),
    "disk-full-of-wal": (CheckName.SLOT_LAG, CheckName.SLOT_WAL_LIMIT, CheckName.OTHER_SLOTS),
    "database-not-prepared": (CheckName.MIGRATIONS, CheckName.ROLES, CheckName.JUDGE_LOGIN),
    "publication": (CheckName.PUBLICATION, CheckName.TABLE_SCOPE),
    "table-not-served": (
        CheckName.TABLE_STORAGE,
        CheckName.TABLE_KEY,
        CheckName.TABLE_PARTITIONS,
        CheckName.TABLE_COLUMNS,
    ),
    "old-rows-missing": (CheckName.TABLE_IDENTITY, CheckName.TABLE_ROW_FILTER),
    "nothing-arrives": (
        CheckName.TABLE_ROW_SECURITY,
        CheckName.TABLE_GRANTS,
        CheckName.POLICIES_MISSING,
    ),
    "policy-raises": (CheckName.POLICY_ERRORS,),
    "policy-slow": (CheckName.POLICY_SPEED,),
    "clock-skew": (CheckName.CLOCK_DATABASE, CheckName.CLOCK_SERVER),
    "server-not-answering": (CheckName.SERVER_PORT, CheckName.SERVER_READY),
    "leaked-subscriptions": (CheckName.SERVER_CHANNELS, CheckName.SERVER_SLOW_CLIENTS),
    "late-or-out-of-order": (CheckName.SYNCHRONOUS_COMMIT, CheckName.EVENT_ORDERING),
}

_PAGE_OF: Final = {name: page for page, names in _PAGES.items() for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: What was looked at.
        status: What that means.
        detail: What was found, and what was expected where that differs.
        remedy: What to run or set; empty where nothing is to do.
        subject: Which variable, table or slot, where there are several; else empty.
    """

    name: CheckName
    status: CheckStatus
    detail: str
    remedy: str = ""
    subject: str = ""

    @property
    def problem(self) -> str | None:
        """What is wrong; None if nothing is known to be."""
        return self.detail if self.status in {CheckStatus.WARN, CheckStatus.FAIL} else None


def ok(name: CheckName, detail: str, *, subject: str = "") -> Check:
    """Say that all is well."""
    return Check(name=name, status=CheckStatus.OK, detail=detail, subject=subject)


def warn(name: CheckName, detail: str, remedy: str, *, subject: str = "") -> Check:
    """Say what will surprise somebody."""
    return Check(name=name, status=CheckStatus.WARN, detail=detail, remedy=remedy, subject=subject)


def fail(name: CheckName, detail: str, remedy: str, *, subject: str = "") -> Check:
    """Say what is broken."""
    return Check(name=name, status=CheckStatus.FAIL, detail=detail, remedy=remedy, subject=subject)


def skip(name: CheckName, detail: str, remedy: str = "") -> Check:
    """Say what could not be looked at."""
    return Check(name=name, status=CheckStatus.SKIP, detail=detail, remedy=remedy)
