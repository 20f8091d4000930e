"""The reader's side of one replication stream: frames in, transactions and status updates out.

Binds the frame layer, the assembler and the flush tracker, and survives reconnects: `restart`
begins a new connection, what was handed out stays known. No input or output and no clock; the
shells are ``postgres/replication_source.py`` and ``postgres/polling_source.py``.
"""

from heliograph.core.replication.assembler import Assembler
from heliograph.core.replication.flush_tracker import FlushTracker
from heliograph.core.replication.frames import (
    XLOG_DATA_HEADER_BYTES,
    XLOG_DATA_TAG,
    Keepalive,
    StandbyStatus,
    XLogData,
    decode_frame,
    encode_standby_status,
)
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import LocalProtocolError

StreamEvent = Transaction | OversizeTransaction | Keepalive


class ReplicationStream:
    """See the module.

    For each frame the caller runs `receive_frame`. A transaction that it returns must be handed on
    and then confirmed by `hand_on` before the next frame.
    """

    def __init__(self, assembler: Assembler) -> None:
        """Start before the first connection."""
        self._assembler = assembler
        self._tracker = FlushTracker()
        self._history: tuple[str, int] | None = None
        self._waiting: Lsn | None = None
        self._confirmed_told: Lsn = ZERO_LSN

    @property
    def progress(self) -> Lsn:
        """Everything that commits below it was handed on."""
        return self._tracker.progress

    @property
    def confirmed(self) -> Lsn:
        """What was last told to be kept (`statuses`, `confirm`)."""
        return self._tracker.confirmed

    def restart(self, *, system_identifier: str, timeline: int, wal_end: Lsn) -> None:
        """Begin a new connection; the server sends again from the confirmed position.

        If it belongs to another history (a restored database, a promoted standby), positions mean
        something else, so nothing of what was handed out is remembered. So it does if the log ends
        before what was handed out: then the database was put back.

        Args:
            system_identifier: From IDENTIFY_SYSTEM.
            timeline: From IDENTIFY_SYSTEM.
            wal_end: Where the log ended, read before anything was received.
        """
        history = (system_identifier, timeline)
        if self._history not in {None, history} or wal_end < self._tracker.progress:
            self._assembler.forget_history()
            self._tracker.reset()
        else:
            self._assembler.reset()
        self._history = history
        self._waiting = None
        self._confirmed_told = ZERO_LSN

    def receive_frame(self, frame: bytes) -> StreamEvent | None:
        """Take one frame.

        Returns:
            The transaction that it completes; or a keepalive, with `progress` moved already; or
            None.

        Raises:
            RemoteProtocolError: If the frame or its message is malformed or out of order.
        """
        if frame and frame[0] == XLOG_DATA_TAG and len(frame) > XLOG_DATA_HEADER_BYTES:
            return self.receive_message(frame[XLOG_DATA_HEADER_BYTES:])
        decoded = decode_frame(frame)
        if isinstance(decoded, XLogData):
            return self.receive_message(decoded.payload)
        self.receive_wal_end(decoded.wal_end)
        return decoded

    def receive_message(self, payload: bytes) -> Transaction | OversizeTransaction | None:
        """Take one pgoutput message; return the transaction that it completes.

        Raises:
            RemoteProtocolError: If it is malformed or out of order.
        """
        if self._waiting is not None:
            message = "a transaction must be handed on before the next message is received"
            raise LocalProtocolError(message)
        completed = self._assembler.receive(payload)
        if completed is not None:
            transaction = (
                completed.mark if isinstance(completed, OversizeTransaction) else completed
            )
            self._waiting = transaction.end_lsn
        return completed

    def receive_wal_end(self, wal_end: Lsn) -> None:
        """Learn that everything that commits below ``wal_end`` was sent already."""
        is_in_flight = self._waiting is not None or self._assembler.is_in_transaction
        self._tracker.receive_wal_end(wal_end, is_in_flight=is_in_flight)

    def hand_on(self) -> Lsn:
        """Note that the transaction returned last was handed on; return the new progress.

        Raises:
            LocalProtocolError: If there is none.
        """
        if self._waiting is None:
            message = "no transaction waits to be handed on"
            raise LocalProtocolError(message)
        self._tracker.hand_on(self._waiting)
        self._waiting = None
        return self._tracker.progress

    def confirm(self, acknowledged: Lsn) -> Lsn:
        """Return the position that the slot may confirm; see `FlushTracker.keep`."""
        return self._tracker.keep(acknowledged)

    def statuses(
        self, acknowledged: Lsn, *, now_us: int, is_reply_requested: bool
    ) -> tuple[bytes, ...]:
        """Return the status updates to send now, one after the other.

        The slot is confirmed by one that says where to; the last one says nothing of it. A server
        that shuts down waits until its reader has flushed everything, but for one that does not
        say how far it has: there, what was written counts (``WalSndDone`` of PostgreSQL). Our slot
        trails by minutes, and would keep it from stopping.

        Args:
            acknowledged: What the receiver of the transactions keeps.
            now_us: Microseconds since 1970-01-01 UTC; informative for the server.
            is_reply_requested: Whether the server shall answer with a keepalive at once.
        """
        confirmed = self._tracker.keep(acknowledged)
        last = self._status(ZERO_LSN, now_us, is_reply_requested=is_reply_requested)
        if confirmed == self._confirmed_told:
            return (last,)
        self._confirmed_told = confirmed
        return self._status(confirmed, now_us, is_reply_requested=False), last

    def _status(self, flushed: Lsn, now_us: int, *, is_reply_requested: bool) -> bytes:
        return encode_standby_status(
            StandbyStatus(
                written=self._tracker.progress,
                flushed=flushed,
                applied=flushed,
                sent_at_us=now_us,
                is_reply_requested=is_reply_requested,
            )
        )
