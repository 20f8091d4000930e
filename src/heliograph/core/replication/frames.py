"""The three frames of the streaming replication protocol that travel inside CopyData.

The server sends XLogData (``w``) and keepalives (``k``), we send standby status updates (``r``).
libpq has already undone the framing of CopyData, so that each call gets exactly one frame.
Source: https://www.postgresql.org/docs/current/protocol-replication.html (START_REPLICATION)
"""

import struct
from dataclasses import dataclass
from typing import Final

from heliograph.core.replication.lsn import Lsn
from heliograph.errors import RemoteProtocolError

#: Microseconds from 1970-01-01 to 2000-01-01, the zero of PostgreSQL's timestamps.
POSTGRES_EPOCH_US: Final = 946_684_800_000_000

#: Bytes before the payload of XLogData: tag, start LSN, end LSN, time.
XLOG_DATA_HEADER_BYTES: Final = 25

XLOG_DATA_TAG: Final = ord("w")
KEEPALIVE_TAG: Final = ord("k")
STANDBY_STATUS_TAG: Final = ord("r")

_XLOG_DATA: Final = struct.Struct(">BQQq")
_KEEPALIVE: Final = struct.Struct(">BQqB")
_STANDBY_STATUS: Final = struct.Struct(">BQQQqB")


@dataclass(frozen=True, slots=True)
class XLogData:
    """One piece of the stream.

    Attributes:
        start_lsn: Where the piece stands in the log.
        end_lsn: End of the log as the server saw it; for logical decoding the same as above.
        sent_at_us: Server's clock, microseconds since 1970-01-01 UTC.
        payload: One pgoutput message.
    """

    start_lsn: Lsn
    end_lsn: Lsn
    sent_at_us: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server says how far it has read, and whether it wants an answer.

    Attributes:
        wal_end: Everything that commits below it was sent before this frame.
        sent_at_us: Server's clock, microseconds since 1970-01-01 UTC.
        is_reply_requested: Whether a status must be sent at once, or the server will hang up.
    """

    wal_end: Lsn
    sent_at_us: int
    is_reply_requested: bool


@dataclass(frozen=True, slots=True)
class StandbyStatus:
    """What we tell the server.

    Attributes:
        written: First byte not yet received.
        flushed: First byte that must be sent again after a restart; the slot is confirmed to it.
            Zero says nothing.
        applied: First byte not yet applied; informative.
        sent_at_us: Our clock, microseconds since 1970-01-01 UTC.
        is_reply_requested: Whether the server shall answer with a keepalive at once.
    """

    written: Lsn
    flushed: Lsn
    applied: Lsn
    sent_at_us: int
    is_reply_requested: bool


def decode_frame(frame: bytes) -> XLogData | Keepalive:
    """Read what the server sent.

    Raises:
        RemoteProtocolError: If it is neither XLogData nor a keepalive, or has a wrong length.
    """
    tag = frame[0] if frame else -1
    if tag == XLOG_DATA_TAG and len(frame) >= XLOG_DATA_HEADER_BYTES:
        _, start_lsn, end_lsn, time_us = _XLOG_DATA.unpack_from(frame)
        payload = frame[XLOG_DATA_HEADER_BYTES:]
        return XLogData(Lsn(start_lsn), Lsn(end_lsn), time_us + POSTGRES_EPOCH_US, payload)
    if tag == KEEPALIVE_TAG and len(frame) == _KEEPALIVE.size:
        _, wal_end, time_us, reply = _KEEPALIVE.unpack(frame)
        return Keepalive(Lsn(wal_end), time_us + POSTGRES_EPOCH_US, reply != 0)
    message = f"expected XLogData or a keepalive, got {len(frame)} bytes with tag {tag}"
    raise RemoteProtocolError(message)


def encode_standby_status(status: StandbyStatus) -> bytes:
    """Write a status update."""
    return _STANDBY_STATUS.pack(
        STANDBY_STATUS_TAG,
        status.written,
        status.flushed,
        status.applied,
        status.sent_at_us - POSTGRES_EPOCH_US,
        status.is_reply_requested,
    )


def decode_standby_status(frame: bytes) -> StandbyStatus:
    """Read a status update, as a server would; the inverse of `encode_standby_status`.

    Raises:
        RemoteProtocolError: If it is something else.
    """
    if len(frame) != _STANDBY_STATUS.size or frame[0] != STANDBY_STATUS_TAG:
        message = f"expected a standby status of {_STANDBY_STATUS.size} bytes, got {len(frame)}"
        raise RemoteProtocolError(message)
    _, written, flushed, applied, time_us, reply = _STANDBY_STATUS.unpack(frame)
    return StandbyStatus(
        Lsn(written), Lsn(flushed), Lsn(applied), time_us + POSTGRES_EPOCH_US, reply != 0
    )
