"""What delivery has done so far, as plain numbers; `/metrics` reads them when it is asked."""

from collections import Counter
from dataclasses import dataclass, field

import structlog

_log = structlog.get_logger("heliograph.delivery")


@dataclass(slots=True)
class DeliveryCounters:
    """Totals since the start; only ever added to.

    Attributes:
        transactions: Transactions received.
        row_changes: Row changes decoded (only those of tables that somebody subscribed to).
        delivered: Changes handed to channels.
        judgements: Judging transactions.
        judged_rows: Row versions judged by PostgreSQL.
        repeats: Judgements asked again, by reason.
        resyncs: Channels told ``resync``, by reason.
        row_errors: Rows denied because judging them raised, by SQLSTATE class.
        undecidable: Rows denied because the WAL does not carry what the judgement reads.
        catch_ups: Channels that began to read from the ring.
        resumes: Subscriptions that went on where their client was.
    """

    transactions: int = 0
    row_changes: int = 0
    delivered: int = 0
    judgements: int = 0
    judged_rows: int = 0
    repeats: Counter[str] = field(default_factory=Counter[str])
    resyncs: Counter[str] = field(default_factory=Counter[str])
    row_errors: Counter[str] = field(default_factory=Counter[str])
    undecidable: int = 0
    catch_ups: int = 0
    resumes: int = 0
    _resyncs_logged: Counter[str] = field(default_factory=Counter[str])

    def log_resyncs(self) -> None:
        """Log how many channels were told ``resync`` since the last call, by reason."""
        new = self.resyncs - self._resyncs_logged
        for reason, channels in new.items():
            _log.warning("resync", reason=reason, channels=channels)
        self._resyncs_logged = self.resyncs.copy()
