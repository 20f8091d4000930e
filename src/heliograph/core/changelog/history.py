"""Whether what a source reads now continues what was read before, across restarts of either side.

Continuity is believed only where it can be proven; everything else begins a new epoch, in which no
earlier position means anything (`replication.md` §4). What was received at the most is kept outside
PostgreSQL, so that a database which was put back to an earlier state gives itself away.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from heliograph.core.replication.lsn import Lsn

#: Why a history does not continue; told as the reason of a ``resync``.
Discontinuity: TypeAlias = Literal[
    "history_changed", "slot_recreated", "slot_moved", "database_behind"
]


@dataclass(frozen=True, slots=True)
class StreamStart:
    """What is known of the database and the slot when a stream starts.

    Attributes:
        system_identifier: From IDENTIFY_SYSTEM, decimal text.
        timeline: From IDENTIFY_SYSTEM.
        slot_name: The replication slot.
        slot_is_new: Whether this start created the slot.
        start_lsn: Confirmed position of the slot: what commits at or behind it is sent.
        wal_end: Where the database's log ended before the stream started.
    """

    system_identifier: str
    timeline: int
    slot_name: str
    slot_is_new: bool
    start_lsn: Lsn
    wal_end: Lsn


@dataclass(frozen=True, slots=True)
class KnownHistory:
    """What was read before.

    Attributes:
        system_identifier: As in `StreamStart`.
        timeline: As in `StreamStart`.
        slot_name: As in `StreamStart`.
        received: Every transaction that commits below it was received; the highest ever.
    """

    system_identifier: str
    timeline: int
    slot_name: str
    received: Lsn


def why_not_continued(known: KnownHistory, now: StreamStart) -> Discontinuity | None:
    """Return why nothing continues; None if everything that is missing will be sent.

    Whatever is sent a second time is dropped by its position. A transaction that commits between
    the slot's position and ``received`` was received before, so a slot that somebody moved within
    that range loses nothing that a subscriber was not told already.
    """
    if (known.system_identifier, known.timeline, known.slot_name) != (
        now.system_identifier,
        now.timeline,
        now.slot_name,
    ):
        return "history_changed"
    if now.slot_is_new:
        return "slot_recreated"
    if now.wal_end < known.received:
        # Only what was flushed is sent, so the log was longer once: it was put back.
        return "database_behind"
    # Only what was received is confirmed by us: somebody else moved the slot, or made it anew.
    return "slot_moved" if now.start_lsn > known.received else None
