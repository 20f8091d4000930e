"""What a database says about itself, gathered for `external_check.py`, which judges it.

Nothing is changed in the database. The trial for a transaction pooler needs two connections: with
such a pooler in the way, what one transaction sets for its session is lost or seen by somebody
else's next transaction.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from heliograph.config import Secret
from heliograph.errors import ConfigurationError, StorageError, UnavailableError
from heliograph.limits import POSTGRES_CHECK_TIMEOUT_S
from heliograph.postgres.connecting import connect

#: Name of the session setting of the pooler trial; PostgreSQL allows any name with a dot.
_TRIAL_SETTING = "heliograph.pooler_trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """Our replication slot, if there is one of that name.

    Attributes:
        plugin: Its output plugin; None for a physical slot.
        database: Its database; None for a physical slot.
        is_active: Whether somebody reads it now.
        wal_status: ``reserved``, ``extended``, ``unreserved`` or ``lost``.
    """

    plugin: str | None
    database: str | None
    is_active: bool
    wal_status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What matters for serving a database.

    Attributes:
        version_number: ``server_version_num``, for example 180006.
        database: Name of the database.
        system_identifier: The cluster's identity; None if the login may not see it.
        is_in_recovery: Whether it is a standby.
        wal_level: ``minimal``, ``replica`` or ``logical``.
        synchronous_commit: The default for sessions.
        slot: Our slot, or None.
        slots_used: Replication slots in use, ours included.
        slots_max: ``max_replication_slots``.
        senders_used: WAL senders in use, our slot's reader included.
        senders_max: ``max_wal_senders``.
        slot_wal_keep_mb: ``max_slot_wal_keep_size``; -1 for no limit.
        has_session: Whether what is set in a session is still there in its next transaction.
    """

    version_number: int
    database: str
    system_identifier: str | None
    is_in_recovery: bool
    wal_level: str
    synchronous_commit: str
    slot: SlotFacts | None
    slots_used: int
    slots_max: int
    senders_used: int
    senders_max: int
    slot_wal_keep_mb: int
    has_session: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationFacts:
    """What the login for replication can do.

    Attributes:
        login: Its name.
        may_replicate: Whether it is superuser, has REPLICATION, or a managed host's equivalent.
        system_identifier: Identity of the cluster it reaches; None if it could not connect.
        database: Database it reaches; None if it could not connect.
        failure: Why a replication connection was refused; None if it works.
    """

    login: str
    may_replicate: bool
    system_identifier: str | None
    database: str | None
    failure: str | None


async def gather_database_facts(url: Secret, *, slot_name: str) -> DatabaseFacts:
    """Ask the database behind DATABASE_URL.

    Raises:
        ConfigurationError: If the login or the database is refused.
        UnavailableError: If the server does not answer.
        StorageError: If it answers something unexpected.
    """
    async with _deadline(), await connect(url, variable="DATABASE_URL") as connection:
        row = await _one_row(
            connection,
            "select current_setting('server_version_num')::int, current_database(),"
            " pg_is_in_recovery(), current_setting('wal_level'),"
            " current_setting('synchronous_commit'),"
            " (select count(*) from pg_replication_slots),"
            " current_setting('max_replication_slots')::int,"
            " (select count(*) from pg_stat_replication),"
            " current_setting('max_wal_senders')::int,"
            " (select setting::int from pg_settings where name = 'max_slot_wal_keep_size')",
        )
        return DatabaseFacts(
            version_number=row[0],
            database=row[1],
            system_identifier=await _system_identifier(connection),
            is_in_recovery=row[2],
            wal_level=row[3],
            synchronous_commit=row[4],
            slot=await _slot(connection, slot_name),
            slots_used=row[5],
            slots_max=row[6],
            senders_used=row[7],
            senders_max=row[8],
            slot_wal_keep_mb=row[9],
            has_session=await _has_session(connection, url),
        )


async def gather_replication_facts(url: Secret, *, variable: str) -> ReplicationFacts:
    """Ask what the login for replication may do, and try a replication connection.

    Args:
        url: Where to, as which login.
        variable: Environment variable that the URL comes from, for errors.

    Raises:
        ConfigurationError: If the login or the database is refused for ordinary statements.
        UnavailableError: If the server does not answer.
        StorageError: If it answers something unexpected.
    """
    async with _deadline(), await connect(url, variable=variable) as connection:
        row = await _one_row(
            connection,
            "select r.rolname, r.rolsuper or r.rolreplication or exists ("
            "   select 1 from pg_roles m"
            "   where m.rolname in ('rds_replication', 'rds_superuser')"
            "   and pg_has_role(r.oid, m.oid, 'member'))"
            " from pg_roles r where r.rolname = current_user",
        )
    login, may_replicate = str(row[0]), bool(row[1])
    try:
        replication = await connect(url, variable=variable, is_replication=True)
    except (ConfigurationError, UnavailableError) as error:
        return ReplicationFacts(
            login=login,
            may_replicate=may_replicate,
            system_identifier=None,
            database=None,
            failure=str(error),
        )
    async with _deadline(), replication:
        identity = await _one_row(replication, "IDENTIFY_SYSTEM")
    return ReplicationFacts(
        login=login,
        may_replicate=may_replicate,
        system_identifier=str(identity[0]),
        database=identity[3],
        failure=None,
    )


@contextlib.asynccontextmanager
async def _deadline() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(POSTGRES_CHECK_TIMEOUT_S):
            yield
    except TimeoutError as error:
        message = f"the database did not answer a check within {POSTGRES_CHECK_TIMEOUT_S:g} s"
        raise UnavailableError(message) from error


async def _one_row(connection: AsyncConnection[TupleRow], statement: LiteralString) -> TupleRow:
    try:
        cursor = await connection.execute(statement)
        row = await cursor.fetchone()
    except psycopg.OperationalError as error:
        message = "the connection broke while the database was checked"
        raise UnavailableError(message) from error
    except psycopg.Error as error:
        message = f"the database refused a check (SQLSTATE {error.sqlstate})"
        raise StorageError(message) from error
    if row is None:
        message = "a check of the database returned no row"
        raise StorageError(message)
    return row


async def _system_identifier(connection: AsyncConnection[TupleRow]) -> str | None:
    try:
        cursor = await connection.execute("select system_identifier::text from pg_control_system()")
        row = await cursor.fetchone()
    except psycopg.errors.InsufficientPrivilege:  # some managed hosts revoke it
        return None
    return None if row is None else str(row[0])


async def _slot(connection: AsyncConnection[TupleRow], slot_name: str) -> SlotFacts | None:
    cursor = await connection.execute(
        "select plugin, database, active, wal_status from pg_replication_slots"
        " where slot_name = %s",
        (slot_name,),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return SlotFacts(plugin=row[0], database=row[1], is_active=row[2], wal_status=row[3])


async def _has_session(connection: AsyncConnection[TupleRow], url: Secret) -> bool:
    """Try whether a setting stays with its session while another session is busy."""
    token = secrets.token_hex(8)
    read = sql.SQL("select current_setting({}, true)").format(sql.Literal(_TRIAL_SETTING))
    set_value = sql.SQL("select set_config({}, {}, false)").format(
        sql.Literal(_TRIAL_SETTING), sql.Literal(token)
    )
    await connection.execute(set_value)
    other = await connect(url, variable="DATABASE_URL")
    async with other, other.transaction():
        # The open transaction keeps the pooler's most recently used server for itself, which is
        # the one that the setting was made on; our next transaction goes to another one. If there
        # is no other one it would wait for ever; then the setting has leaked, and we do not ask.
        leaked = await (await other.execute(read)).fetchone()
        if leaked == (token,):
            return False
        kept = await (await connection.execute(read)).fetchone()
    return kept == (token,)
