"""Rows that were decoded for one channel, kept for the next one that reads the same transactions.

Clients that come back together read the same part of the ring one after the other. What each would
decode and encode for itself is done once for all of them; what each may see is not shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliograph import limits
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.row_message import Wanted
from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.lane_item import DispatchedTransaction

if TYPE_CHECKING:
    from heliograph.core.replication.lsn import Lsn

#: What somebody wants of a transaction: tables, and where their keys stand.
_Wanted = tuple[tuple[int, tuple[int, ...] | None], ...]

#: Renderings kept for each row. What clients choose to see of it has no bound of its own.
_RENDERINGS_PER_ROW_MAX = 4


@dataclass(slots=True, eq=False)
class _Shared:
    """One transaction, decoded."""

    dispatched: DispatchedTransaction
    changes: Sequence[RowChange]


class SharedRows:
    """Decoded transactions, the last ones used; belongs to the event loop."""

    def __init__(
        self,
        *,
        rows_max: int = limits.SHARED_ROWS_MAX,
        bytes_max: int = limits.SHARED_BYTES_MAX,
    ) -> None:
        """Start empty.

        Args:
            rows_max: Row messages of the transactions kept.
            bytes_max: Bytes of them as they stand in the ring.
        """
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._kept: dict[tuple[Lsn, _Wanted], _Shared] = {}
        self._rows = 0
        self._size_bytes = 0

    def get(
        self, transaction: Transaction, wanted: Wanted
    ) -> tuple[DispatchedTransaction, Sequence[RowChange]]:
        """Return a transaction, with what was encoded of it, and its changes.

        Args:
            transaction: One that is not large.
            wanted: As for `Transaction.decode`.
        """
        key = (transaction.commit_lsn, tuple(wanted.items()))
        found = self._kept.pop(key, None)
        if found is None:
            found = _Shared(DispatchedTransaction(transaction), transaction.decode(wanted))
            self._rows += transaction.row_count
            self._size_bytes += transaction.size_bytes
        renderings = found.dispatched.renderings
        if len(renderings) > _RENDERINGS_PER_ROW_MAX * transaction.row_count:
            renderings.clear()
        # Behind those used earlier.
        self._kept[key] = found
        self._drop_excess()
        return found.dispatched, found.changes

    def __len__(self) -> int:
        """Return how many transactions are kept."""
        return len(self._kept)

    def restart(self) -> None:
        """Forget everything: in another history other transactions stand at the same positions."""
        self._kept.clear()
        self._rows = self._size_bytes = 0

    def _drop_excess(self) -> None:
        while self._rows > self._rows_max or self._size_bytes > self._bytes_max:
            oldest = self._kept.pop(next(iter(self._kept))).dispatched.transaction
            self._rows -= oldest.row_count
            self._size_bytes -= oldest.size_bytes
