"""Every replication slot of a cluster, what it costs, and what time the server has.

For whoever looks at a database from outside; the reader looks after its own slot in `slot.py`.
Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from heliograph.errors import StorageError

_SLOTS: Final = """
select s.slot_name::text as name, s.active as is_active, s.active_pid as holder_pid,
       s.wal_status, s.safe_wal_size as safe_bytes,
       coalesce(pg_catalog.pg_wal_lsn_diff(
         case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
              else pg_catalog.pg_current_wal_lsn() end, s.restart_lsn), 0)::bigint
         as retained_bytes,
       a.application_name as holder_name, pg_catalog.host(a.client_addr) as holder_address
  from pg_catalog.pg_replication_slots s
  left join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
 order by 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotUsage:
    """One slot.

    Attributes:
        name: Its name.
        is_active: Whether somebody reads it now.
        holder_pid: PostgreSQL's process that serves who reads it; None if nobody does.
        holder_name: What the reader calls itself (``application_name``).
        holder_address: From where it came; None over a local socket.
        wal_status: ``reserved``, ``extended``, ``unreserved`` or ``lost``.
        retained_bytes: WAL that is kept for it.
        safe_bytes: WAL that may still be written before it is lost; None without a limit.
    """

    name: str
    is_active: bool
    holder_pid: int | None
    holder_name: str | None
    holder_address: str | None
    wal_status: str | None
    retained_bytes: int
    safe_bytes: int | None


async def read_slots(connection: AsyncConnection[Any]) -> Sequence[SlotUsage]:
    """Return every slot of the cluster by name; reads only."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SLOTS)
        return [SlotUsage(**row) for row in await cursor.fetchall()]


async def read_clock(connection: AsyncConnection[Any]) -> float:
    """Return the seconds since 1970-01-01 UTC by PostgreSQL's clock."""
    cursor = await connection.execute(
        "select extract(epoch from pg_catalog.clock_timestamp())::float8"
    )
    row = await cursor.fetchone()
    if row is None:
        message = "PostgreSQL did not tell the time"
        raise StorageError(message)
    return float(row[0])
