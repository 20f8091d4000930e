"""The replication slot: made, inspected, made anew when it is lost, and taken from a dead reader.

All through ordinary SQL on an ordinary session, so that values are bound.
Sources: https://www.postgresql.org/docs/current/view-pg-replication-slots.html and
https://www.postgresql.org/docs/current/functions-admin.html (replication management functions)
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from heliograph import limits
from heliograph.core.replication.lsn import ZERO_LSN, Lsn, parse_lsn
from heliograph.errors import ConfigurationError, ReplicationError
from heliograph.postgres.replication_connection import (
    INSUFFICIENT_PRIVILEGE,
    lock_key,
    reader_name,
    refused,
)

_PLUGIN: Final = "pgoutput"

_INSPECT: Final = """
    select plugin, database = current_database(), temporary, wal_status, active_pid,
           confirmed_flush_lsn::text, restart_lsn::text,
           pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint,
           pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint,
           (select nullif(setting::bigint, -1) * 1048576 from pg_settings
             where name = 'max_slot_wal_keep_size')
      from pg_replication_slots where slot_name = %s
"""

_CREATE: Final = "select lsn::text from pg_create_logical_replication_slot(%s, %s)"

_DROP: Final = "select pg_drop_replication_slot(%s)"

_REQUIREMENTS: Final = """
    select current_setting('wal_level'), current_setting('server_version_num')::int,
           (select coalesce(bool_or(rolreplication or rolsuper), false)
              from pg_roles where rolname = current_user),
           array(select name from unnest(%s::text[]) name
                  where name not in (select pubname from pg_publication))
"""

#: Who holds the slot, or the lock of its reader; what shows that it lives; whether it is ours.
_HOLDER: Final = """
    select activity.pid,
           activity.application_name = %s and activity.usename = current_user,
           concat_ws(' ', replication.reply_time, activity.state_change)
      from pg_stat_activity activity
      left join pg_stat_replication replication using (pid)
     where activity.pid in (
               select active_pid from pg_replication_slots where slot_name = %s
                union all
               select pid from pg_locks
                where locktype = 'advisory' and granted and classid = %s and objid = %s
                  and objsubid = 2
                  and database = (select oid from pg_database where datname = current_database()))
       and activity.pid <> all(%s::int[])
     limit 1
"""

_BLOCKERS: Final = "select pg_blocking_pids(%s)"

_TERMINATE: Final = "select pg_terminate_backend(%s)"


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What PostgreSQL says about a slot.

    Attributes:
        wal_status: ``reserved``, ``extended``, ``unreserved`` or ``lost``; None while it reserves
            nothing.
        active_pid: Backend that uses it.
        confirmed_lsn: What was confirmed, as PostgreSQL remembers it.
        restart_lsn: Oldest WAL that it holds back.
        lag_bytes: From the confirmed position to the end of the log.
        retained_bytes: Of WAL that it holds back.
        wal_bytes_max: Of WAL that it may hold back before it is lost; None if there is no limit.
    """

    wal_status: str | None
    active_pid: int | None
    confirmed_lsn: Lsn
    restart_lsn: Lsn
    lag_bytes: int
    retained_bytes: int
    wal_bytes_max: int | None

    @property
    def is_lost(self) -> bool:
        """Whether WAL that it needs is gone: it can only be made anew."""
        return self.wal_status == "lost"


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """A backend that holds the slot or its lock.

    Attributes:
        pid: Its process id.
        is_ours: Whether it is a reader of ours under the same login.
        life: Text that changes while it lives.
    """

    pid: int
    is_ours: bool
    life: str


async def check_requirements(
    session: AsyncConnection[TupleRow], publications: Sequence[str]
) -> None:
    """Check what the slot needs.

    Raises:
        ConfigurationError: If ``wal_level``, the version or the login's rights rule it out.
        ReplicationError: If a publication is missing (it may be made again), or PostgreSQL does
            not answer.
    """
    ((wal_level, version, may_replicate, missing),) = await _fetch(
        session, _REQUIREMENTS, (list(publications),)
    )
    if version < limits.POSTGRES_MAJOR_MIN * 10_000:
        message = f"PostgreSQL {limits.POSTGRES_MAJOR_MIN} or newer is needed"
        raise ConfigurationError(message)
    if wal_level != "logical":
        message = "wal_level must be logical: ALTER SYSTEM SET wal_level = logical, then restart"
        raise ConfigurationError(message)
    if not may_replicate:
        message = "the login may not replicate: ALTER ROLE … REPLICATION"
        raise ConfigurationError(message)
    if missing:
        message = f"publication {', '.join(missing)} is missing: run `heliograph migrate`"
        raise ReplicationError(message)


async def inspect_slot(session: AsyncConnection[TupleRow], slot_name: str) -> SlotStatus | None:
    """Return the state of a slot; None if there is none.

    Raises:
        ConfigurationError: If the name belongs to a slot of another plugin or database.
        ReplicationError: If PostgreSQL does not answer.
    """
    rows = await _fetch(session, _INSPECT, (slot_name,))
    if not rows:
        return None
    ((plugin, is_here, is_temporary, *state),) = rows
    if plugin != _PLUGIN or not is_here or is_temporary:
        message = f"the replication slot {slot_name} belongs to another database or purpose"
        raise ConfigurationError(message)
    wal_status, active_pid, confirmed, restart, lag, retained, wal_bytes_max = state
    return SlotStatus(
        wal_status=wal_status,
        active_pid=active_pid,
        confirmed_lsn=_lsn(confirmed),
        restart_lsn=_lsn(restart),
        lag_bytes=lag or 0,
        retained_bytes=retained or 0,
        wal_bytes_max=wal_bytes_max,
    )


async def create_slot(
    session: AsyncConnection[TupleRow],
    watcher: AsyncConnection[TupleRow],
    slot_name: str,
    report: Callable[[str], Awaitable[None]],
) -> Lsn:
    """Make a permanent slot; waits until every transaction that is writing now has ended.

    Args:
        session: Makes it; it has no statement timeout.
        watcher: A second session, which finds out what the first one waits for.
        slot_name: Its name.
        report: Called with a text about once a second while it waits.

    Returns:
        Its first position: what commits after it is delivered.

    Raises:
        ConfigurationError: If the login may not make one.
        ReplicationError: If PostgreSQL can not make one now.
    """
    try:
        async with asyncio.TaskGroup() as group:
            creation = group.create_task(_create(session, slot_name))
            await _watch_creation(creation, watcher, session.info.backend_pid, report)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    outcome = creation.result()
    if isinstance(outcome, psycopg.Error):
        if outcome.sqlstate == INSUFFICIENT_PRIVILEGE:
            message = "the login may not make a replication slot: ALTER ROLE … REPLICATION"
            raise ConfigurationError(message) from outcome
        raise refused(outcome) from outcome
    return outcome


async def drop_slot(session: AsyncConnection[TupleRow], slot_name: str) -> None:
    """Drop a slot.

    Raises:
        ReplicationError: If it is in use, or PostgreSQL does not answer.
    """
    await _fetch(session, _DROP, (slot_name,))


async def find_holder(
    session: AsyncConnection[TupleRow], slot_name: str, *, except_pids: Sequence[int]
) -> SlotHolder | None:
    """Return the backend that holds the slot or the lock of its reader, if there is one.

    Args:
        session: An ordinary session.
        slot_name: The slot.
        except_pids: Backends of our own.

    Raises:
        ReplicationError: If PostgreSQL does not answer.
    """
    rows = await _fetch(
        session,
        _HOLDER,
        (reader_name(slot_name), slot_name, *lock_key(slot_name), list(except_pids)),
    )
    if not rows:
        return None
    ((pid, is_ours, life),) = rows
    return SlotHolder(pid, bool(is_ours), life)


async def terminate_holder(session: AsyncConnection[TupleRow], holder: SlotHolder) -> None:
    """End the backend of a dead reader.

    Raises:
        ReplicationError: If PostgreSQL refuses or does not answer.
    """
    await _fetch(session, _TERMINATE, (holder.pid,))


class HolderWatch:
    """Finds out whether the holder of our slot is a dead reader of ours.

    It is believed dead when nothing about it changed for a while: a living reader sends a status
    several times per `wal_sender_timeout`. Clocks of other machines are not compared.
    """

    def __init__(self) -> None:
        """Nobody was seen yet."""
        self._holder: SlotHolder | None = None
        self._unchanged_since_s = 0.0

    def is_dead(self, holder: SlotHolder | None, *, silent_s: float, now_s: float) -> bool:
        """Take an observation.

        Args:
            holder: Who holds the slot now.
            silent_s: Seconds without any change after which a reader of ours counts as dead.
            now_s: Monotonic clock.
        """
        if holder is None or holder != self._holder:
            self._holder = holder
            self._unchanged_since_s = now_s
            return False
        return holder.is_ours and now_s - self._unchanged_since_s >= silent_s


async def _watch_creation(
    creation: asyncio.Task[Lsn | psycopg.Error],
    watcher: AsyncConnection[TupleRow],
    creator_pid: int,
    report: Callable[[str], Awaitable[None]],
) -> None:
    """Say whom the creation waits for, until it is over."""
    while not (await asyncio.wait((creation,), timeout=limits.SLOT_WATCH_INTERVAL_S))[0]:
        ((pids,),) = await _fetch(watcher, _BLOCKERS, (creator_pid,))
        whom = ", ".join(map(str, pids)) or "unknown"
        await report(
            f"the new slot waits for the end of every running write transaction (process {whom})"
        )


async def _create(session: AsyncConnection[TupleRow], slot_name: str) -> Lsn | psycopg.Error:
    """Make the slot; an error is returned, so that it does not come out in an exception group."""
    try:
        cursor = await session.execute(_CREATE, (slot_name, _PLUGIN))
        ((lsn,),) = await cursor.fetchall()
    except psycopg.Error as error:
        return error
    return parse_lsn(lsn)


async def _fetch(
    session: AsyncConnection[TupleRow], statement: str, parameters: Sequence[object]
) -> Sequence[TupleRow]:
    try:
        async with asyncio.timeout(limits.REPLICATION_ANSWER_TIMEOUT_S):
            cursor = await session.execute(statement.encode(), parameters)
            return await cursor.fetchall()
    except TimeoutError as cause:
        message = "PostgreSQL does not answer"
        raise ReplicationError(message) from cause
    except psycopg.Error as cause:
        raise refused(cause) from cause


def _lsn(text: str | None) -> Lsn:
    return ZERO_LSN if text is None else parse_lsn(text)
