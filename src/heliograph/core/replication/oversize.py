"""Placeholder contract of an oversize transaction; see `transaction`."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.transaction import Transaction


class OversizeTransaction(Protocol):
    """A transaction larger than memory allows, readable once, segment by segment."""

    @property
    def mark(self) -> Transaction:
        """The transaction without its rows (``is_too_large`` is true): what the ring keeps."""
        ...

    def segments(self) -> Iterator[Sequence[RowChange]]:
        """Yield its folded changes in order, at most OVERSIZE_SEGMENT_ROWS_MAX at a time.

        Raises:
            LimitExceededError: If it can not be folded within its bounds; nothing was yielded.
        """
        ...
