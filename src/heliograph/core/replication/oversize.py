"""A transaction larger than memory allows: written to a spill, folded in two passes.

Pass 1 finds the keys that may occur more than once: two bits of a fixed bitmap per key, and a key
whose bits are both set already is *suspected*. Pass 2 hands on the rows of all other keys as they
stand, and holds only those of suspected keys back until the end, where they are folded as in
`row_fold`. A false suspicion costs memory and order, never correctness.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from heliograph.core.replication.pgoutput import read_relation_oid
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.row_fold import RowFold
from heliograph.core.replication.row_message import (
    RowReader,
    RowVersions,
    Wanted,
    make_readers,
)
from heliograph.core.replication.transaction import RelationTimeline, Transaction
from heliograph.errors import LimitExceededError
from heliograph.limits import (
    OVERSIZE_KEY_BITMAP_BITS,
    OVERSIZE_REPEATED_BYTES_MAX,
    OVERSIZE_REPEATED_KEYS_MAX,
    OVERSIZE_SEGMENT_ROWS_MAX,
)


class Spill(Protocol):
    """Where the row messages of one transaction are kept outside memory."""

    def append(self, record: bytes) -> None:
        """Keep one row message.

        Raises:
            StorageError: If the disk does not take it.
        """
        ...

    def records(self) -> Iterator[bytes]:
        """Yield the records from the first one, in order; may be called again.

        Raises:
            StorageError: If they can not be read.
        """
        ...

    def discard(self) -> None:
        """Give the storage back; idempotent."""
        ...


class OversizeBounds(NamedTuple):
    """What folding may hold; see the comments in ``limits.py``."""

    segment_rows: int = OVERSIZE_SEGMENT_ROWS_MAX
    repeated_keys: int = OVERSIZE_REPEATED_KEYS_MAX
    repeated_bytes: int = OVERSIZE_REPEATED_BYTES_MAX
    key_bitmap_bits: int = OVERSIZE_KEY_BITMAP_BITS


class _ReadRow(NamedTuple):
    """One wanted row of the spill."""

    sequence: int
    reader: RowReader
    row: RowVersions
    size_bytes: int


class OversizeTransaction:
    """A transaction whose rows are in a spill, read segment by segment.

    Attributes:
        mark: The transaction without its rows (``is_too_large`` is true): what the ring keeps.
    """

    def __init__(
        self,
        mark: Transaction,
        spill: Spill | None,
        *,
        bounds: OversizeBounds | None = None,
    ) -> None:
        """Take what the assembler made.

        Args:
            mark: Everything but the rows; its ``raw_rows`` holds ``switches`` and ``cleared``.
            spill: All row messages in order; None if the disk did not take them.
            bounds: Other bounds than those of ``limits.py``, for tests.
        """
        self.mark = mark
        self._spill = spill
        self._bounds = bounds or OversizeBounds()

    def segments(self, wanted: Wanted) -> Iterator[Sequence[RowChange]]:
        """Yield the folded changes, at most OVERSIZE_SEGMENT_ROWS_MAX at a time.

        Changes of keys that occur once come first, in order of ``sequence``; those of keys that
        occur more than once (or seem to) come at the end, again in order. Empty segments are
        yielded while nothing is found, after each OVERSIZE_SEGMENT_ROWS_MAX rows read, so that the
        caller can let others run.

        Args:
            wanted: As for `Transaction.decode`.

        Raises:
            LimitExceededError: If it can not be folded within its bounds, or the disk did not
                take all rows. Tell the tables `resync`, whatever was yielded before.
            StorageError: If the spill can not be read; as above.
            RemoteProtocolError: If a wanted row is malformed; as above.
        """
        if self._spill is None:
            message = "the rows of an oversize transaction did not fit on the disk"
            raise LimitExceededError(message)
        readers = make_readers(self.mark.relations, wanted)
        if not readers:
            return
        suspects = _Suspects(self._bounds)
        for rows in self._scan(self._spill, readers):
            for _, reader, row, _ in rows:
                if reader.has_key:
                    suspects.note(reader, row)
            yield ()
        folds: dict[int, RowFold] = {}
        for rows in self._scan(self._spill, readers):
            changes: list[RowChange] = []
            for sequence, reader, row, size in rows:
                if suspects.concerns(reader, row):
                    fold = folds.setdefault(reader.relation.oid, RowFold())
                    fold.add(reader, row, sequence, size)
                else:
                    changes.append(reader.change(row, sequence))
            self._check_held(folds)
            yield changes
        held = [change for fold in folds.values() for change in fold.changes()]
        held.sort(key=lambda change: change.sequence)
        for start in range(0, len(held), self._bounds.segment_rows):
            yield held[start : start + self._bounds.segment_rows]

    def close(self) -> None:
        """Give the spill back; idempotent. The sink calls it when it has read the rows."""
        if self._spill is not None:
            self._spill.discard()

    def _scan(self, spill: Spill, readers: dict[int, RowReader]) -> Iterator[list[_ReadRow]]:
        """Read the spill once; yield the wanted rows after each so many rows."""
        raw = self.mark.raw_rows
        cleared = raw.cleared or {}
        timeline = RelationTimeline(self.mark.relations, raw.switches)
        rows: list[_ReadRow] = []
        rows_until_yield = self._bounds.segment_rows
        for index, record in enumerate(spill.records()):
            relation = timeline.version(index, read_relation_oid(record))
            reader = readers.get(id(relation))
            if reader is not None and index >= cleared.get(relation.oid, 0):
                row = reader.read(record, 0, len(record))
                rows.append(_ReadRow(index, reader, row, len(record)))
            rows_until_yield -= 1
            if not rows_until_yield:
                yield rows
                rows = []
                rows_until_yield = self._bounds.segment_rows
        yield rows

    def _check_held(self, folds: dict[int, RowFold]) -> None:
        if sum(fold.size_bytes for fold in folds.values()) > self._bounds.repeated_bytes:
            message = (
                "repeated keys of an oversize transaction hold more than "
                f"OVERSIZE_REPEATED_BYTES_MAX = {self._bounds.repeated_bytes} bytes"
            )
            raise LimitExceededError(message)


#: One hash gives both bit numbers: its low bits, and those above them.
_SECOND_BIT_SHIFT: Final = 31


class _Suspects:
    """Hashes of keys that may occur more than once."""

    def __init__(self, bounds: OversizeBounds) -> None:
        self._bits = bounds.key_bitmap_bits
        self._keys_max = bounds.repeated_keys
        self._bitmap = bytearray((self._bits + 7) // 8)
        self._suspected: set[int] = set()

    def note(self, reader: RowReader, row: RowVersions) -> None:
        """Take the keys of one message.

        Raises:
            LimitExceededError: If too many keys seem to occur more than once.
        """
        oid = reader.relation.oid
        for key in reader.keys(row):
            number = _hash(oid, key)
            if self._is_set_after_setting(number):
                self._suspected.add(number)
        if len(self._suspected) > self._keys_max:
            message = (
                "an oversize transaction repeats more than "
                f"OVERSIZE_REPEATED_KEYS_MAX = {self._keys_max} keys"
            )
            raise LimitExceededError(message)

    def concerns(self, reader: RowReader, row: RowVersions) -> bool:
        """Tell whether the message touches a suspected key."""
        oid = reader.relation.oid
        return reader.has_key and any(
            _hash(oid, key) in self._suspected for key in reader.keys(row)
        )

    def _is_set_after_setting(self, number: int) -> bool:
        """Set both bits of a hash; tell whether both were set before."""
        both = True
        for bit in (number % self._bits, (number >> _SECOND_BIT_SHIFT) % self._bits):
            byte, mask = bit >> 3, 1 << (bit & 7)
            if not self._bitmap[byte] & mask:
                both = False
                self._bitmap[byte] |= mask
        return both


def _hash(oid: int, key: Hashable) -> int:
    return hash((oid, key))
