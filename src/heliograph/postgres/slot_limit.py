"""Our own limit of the WAL that our slot holds back: beyond it the slot is dropped.

A last resort, for databases whose ``max_slot_wal_keep_size`` nobody sets. The reader then finds no
slot and makes a new one, which begins a new epoch: every client is told ``resync`` and loads anew.
"""

import asyncio

import structlog
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from heliograph import limits
from heliograph.config import Secret
from heliograph.errors import ReplicationError
from heliograph.postgres import slot
from heliograph.postgres.replication_connection import (
    SLOT_IN_USE,
    UNDEFINED_OBJECT,
    lock_key,
    open_session,
    run_simple,
)

_log = structlog.get_logger("heliograph.slot")


def smaller_limit(of_server: int | None, ours: int) -> int | None:
    """Return the limit that is reached first.

    Args:
        of_server: ``max_slot_wal_keep_size`` in bytes; None for no limit.
        ours: 0 for no limit.
    """
    if not ours:
        return of_server
    return ours if of_server is None else min(of_server, ours)


class SlotLimit:
    """Drops the slot whenever it holds back too much.

    Attributes:
        bytes_max: WAL that it may hold back; 0 for no limit.
        drops: How often it was dropped.
    """

    def __init__(self, url: Secret, slot_name: str, bytes_max: int) -> None:
        """Take what it needs.

        Args:
            url: As of the reader, whose session it may have to end.
            slot_name: The slot.
            bytes_max: See the class.
        """
        self._url = url
        self._slot_name = slot_name
        self.bytes_max = bytes_max
        self.drops = 0

    async def enforce(self, retained_bytes: int) -> None:
        """Drop the slot if it holds back more than it may; a failure is logged."""
        if not self.bytes_max or retained_bytes <= self.bytes_max:
            return
        told = {"slot": self._slot_name, "retained_bytes": retained_bytes}
        try:
            await drop_held_slot(self._url, self._slot_name)
        except ReplicationError as error:
            _log.error("slot_not_dropped", reason=str(error), **told)
            return
        self.drops += 1
        _log.error(
            "slot_dropped",
            limit_bytes=self.bytes_max,
            remedy="find out why the reader was behind, or which transaction was open for so long,"
            " or raise HELIOGRAPH_SLOT_WAL_BYTES_MAX: every client has to load anew",
            **told,
        )


async def drop_held_slot(url: Secret, slot_name: str) -> None:
    """End our reader of a slot and drop the slot.

    Raises:
        ReplicationError: If somebody else holds the slot, or PostgreSQL refuses or does not answer.
    """
    session = await open_session(url, slot_name=slot_name, is_replication=False, may_wait=True)
    try:
        async with asyncio.timeout(limits.REPLICATION_ANSWER_TIMEOUT_S):
            while True:
                if await _drop(session, slot_name):
                    return
                await asyncio.sleep(limits.RECONNECT_WAIT_FIRST_S)
    except TimeoutError as cause:
        message = "the slot is not let go of"
        raise ReplicationError(message) from cause
    finally:
        await session.close()


async def _drop(session: AsyncConnection[TupleRow], slot_name: str) -> bool:
    """Try once; return whether the slot is gone."""
    own = (session.info.backend_pid,)
    holder = await slot.find_holder(session, slot_name, except_pids=own)
    if holder is not None and not holder.is_ours:
        message = f"process {holder.pid}, which is no reader of ours, holds the slot"
        raise ReplicationError(message)
    if holder is not None:
        await slot.terminate_holder(session, holder)
    # With the lock of the reader, which otherwise comes back faster than the slot is dropped.
    lock = sql.SQL("SELECT pg_try_advisory_lock({}, {})").format(
        *map(sql.Literal, lock_key(slot_name))
    )
    if (await run_simple(session, lock))[0][0] is not True:
        return False
    try:
        await slot.drop_slot(session, slot_name)
    except ReplicationError as error:
        if error.sqlstate == SLOT_IN_USE:
            return False
        if error.sqlstate != UNDEFINED_OBJECT:
            raise
    return True
