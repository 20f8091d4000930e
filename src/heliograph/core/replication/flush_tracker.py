"""Which position the slot may confirm: never past a transaction that is not kept.

The problem: a confirmed position makes PostgreSQL forget what lies below it, and it will not send
that again. A keepalive says how far the server has read; confirming that while a transaction is
being received, or is received and not yet kept, loses it.

What is tracked: the end of the last complete transaction handed on, the walEnd of the last
keepalive that came while nothing was in flight between Begin and being handed on, and what the
receiver of the transactions says it keeps.

The rule:

1. What the receiver keeps never counts beyond what was handed to it.
2. While it keeps less than was handed on, that is the confirmed position.
3. When it keeps everything handed on, the position follows the walEnd of keepalives that came
   while nothing was in flight: so quiet tables on a busy server do not hold WAL back.
4. The confirmed position never goes back.

No clock, no input or output: `stream` feeds it.
"""

from heliograph.core.replication.lsn import ZERO_LSN, Lsn


class FlushTracker:
    """See the module.

    Attributes:
        progress: Everything that commits below it was handed on.
        confirmed: What the slot may confirm, as of the last `keep`.
    """

    __slots__ = ("_handed_end", "confirmed", "progress")

    def __init__(self) -> None:
        """Know nothing yet."""
        self.progress: Lsn = ZERO_LSN
        self.confirmed: Lsn = ZERO_LSN
        self._handed_end: Lsn = ZERO_LSN

    def hand_on(self, end_lsn: Lsn) -> None:
        """Note that a complete transaction was handed to the receiver.

        Args:
            end_lsn: First byte after its commit record.
        """
        self._handed_end = max(self._handed_end, end_lsn)
        self.progress = max(self.progress, end_lsn)

    def receive_wal_end(self, wal_end: Lsn, *, is_in_flight: bool) -> bool:
        """Take the walEnd of a keepalive; return whether it moved the progress.

        Args:
            wal_end: Everything that commits below it was sent to us before.
            is_in_flight: Whether a transaction was received in part, or wholly and not yet
                handed on; then the walEnd says nothing that may be believed.
        """
        if is_in_flight or wal_end <= self.progress:
            return False
        self.progress = wal_end
        return True

    def keep(self, acknowledged: Lsn) -> Lsn:
        """Take what the receiver keeps; return the position that the slot may confirm.

        Args:
            acknowledged: Every transaction that commits below it is kept. It may lie beyond the
                last one handed on.
        """
        safe = self.progress if acknowledged >= self._handed_end else acknowledged
        self.confirmed = max(self.confirmed, safe)
        return self.confirmed

    def reset(self) -> None:
        """Forget everything: another history begins, in which positions may be lower."""
        self.progress = self.confirmed = self._handed_end = ZERO_LSN
