"""A transaction with many rows, read segment by segment: from a spill, or from memory.

Three passes. The first one finds the keys that may occur more than once: two bits of a fixed bitmap
per key, and a key whose bits are both set already is *suspected*. The second one, only if there are
suspected keys, folds their rows as in `row_fold`. The last one hands on the rows of all other keys
as they stand, and each folded change where its last row stood. A false suspicion costs memory only.
What the first two found is kept, so that whoever reads the rows again pays for the last one only.
"""

from bisect import bisect_right
from collections.abc import Generator, Hashable, Iterator, Sequence
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
from heliograph.core.replication.transaction import RawRows, RelationTimeline, Transaction
from heliograph.errors import LimitExceededError
from heliograph.limits import (
    OVERSIZE_KEY_BITMAP_BITS,
    OVERSIZE_REPEATED_BYTES_MAX,
    OVERSIZE_REPEATED_KEYS_MAX,
    OVERSIZE_SEGMENT_BYTES_MAX,
    OVERSIZE_SEGMENT_ROWS_MAX,
)


class RowRecords(Protocol):
    """The row messages of one transaction, in order."""

    def records(self) -> Iterator[bytes]:
        """Yield the records from the first one, in order.

        May be called again, also while earlier iterations are not over.

        Raises:
            StorageError: If they can not be read.
        """
        ...

    def discard(self) -> None:
        """Give the storage back; idempotent."""
        ...


class Spill(RowRecords, Protocol):
    """Where the row messages of one transaction are kept outside memory."""

    def append(self, record: bytes) -> None:
        """Keep one row message.

        Raises:
            StorageError: If the disk does not take it.
        """
        ...


class OversizeBounds(NamedTuple):
    """What folding may hold; see the comments in ``limits.py``."""

    segment_rows: int = OVERSIZE_SEGMENT_ROWS_MAX
    segment_bytes: int = OVERSIZE_SEGMENT_BYTES_MAX
    repeated_keys: int = OVERSIZE_REPEATED_KEYS_MAX
    repeated_bytes: int = OVERSIZE_REPEATED_BYTES_MAX
    key_bitmap_bits: int = OVERSIZE_KEY_BITMAP_BITS


class _ReadRow(NamedTuple):
    """One wanted row of the spill."""

    sequence: int
    reader: RowReader
    row: RowVersions
    size_bytes: int


class _Segment(NamedTuple):
    """What one step of a pass has read.

    Attributes:
        rows: The wanted rows.
        end: Index of the first row of the next step.
    """

    rows: list[_ReadRow]
    end: int


class _Folded(NamedTuple):
    """What the first two passes found for some wanted tables.

    Attributes:
        wanted: The tables.
        suspects: Keys that may occur more than once.
        changes: What became of their rows, in order of ``sequence``.
    """

    wanted: Wanted
    suspects: "_Suspects"
    changes: list[RowChange]


#: Bits of the bitmap per row of a transaction in memory: less than one key in a thousand is
#: suspected wrongly.
_BITS_PER_ROW: Final = 64


class _RowsInMemory:
    """Several row messages in memory, as `RowRecords`."""

    def __init__(self, raw: RawRows) -> None:
        self._raw = raw

    def records(self) -> Iterator[bytes]:
        payload, start = self._raw.payload, 0
        for end in memoryview(self._raw.ends).cast("I"):
            yield payload[start:end]
            start = end

    def discard(self) -> None:
        """Leave them to their transaction."""


class OversizeTransaction:
    """A transaction read segment by segment.

    Attributes:
        mark: The transaction without its rows (``is_too_large`` is true): what the ring keeps. Of
            one in memory: the transaction.
    """

    def __init__(
        self,
        mark: Transaction,
        spill: RowRecords | None,
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
        self._folded: _Folded | None = None

    @classmethod
    def in_memory(cls, transaction: Transaction) -> "OversizeTransaction":
        """Read a transaction of several rows that is in memory segment by segment."""
        # A message with both versions of a row counts for each, and has up to two keys.
        bounds = OversizeBounds(
            repeated_keys=2 * transaction.row_count,
            repeated_bytes=2 * transaction.size_bytes,
            key_bitmap_bits=transaction.row_count * _BITS_PER_ROW,
        )
        return cls(transaction, _RowsInMemory(transaction.raw_rows), bounds=bounds)

    def fold(self, wanted: Wanted) -> Iterator[None]:
        """Do what all readers of the same tables share, unless it was done; yields turns.

        Raises:
            LimitExceededError: As `segments`; so for the others.
            StorageError: As above.
            RemoteProtocolError: As above.
        """
        readers = make_readers(self.mark.relations, wanted)
        if readers and (self._folded is None or self._folded.wanted != wanted):
            self._folded = yield from self._fold(self._rows(), readers, wanted)

    def segments(
        self, wanted: Wanted, *, after_sequence: int = -1
    ) -> Iterator[Sequence[RowChange]]:
        """Yield the folded changes in order of ``sequence``, a bounded number at a time.

        Empty segments are yielded while nothing is found, so that the caller can let others run.
        Several may be read at the same time; `fold` first, so that each does not do it.

        Args:
            wanted: As for `Transaction.decode`.
            after_sequence: Changes up to this one are left out.

        Raises:
            LimitExceededError: If it can not be folded within its bounds, or the disk did not
                take all rows. Tell the tables `resync`, whatever was yielded before.
            StorageError: If the spill can not be read; as above.
            RemoteProtocolError: If a wanted row is malformed; as above.
        """
        spill = self._rows()
        for _ in self.fold(wanted):
            yield ()
        folded = self._folded
        if folded is None or folded.wanted != wanted:
            return
        readers = make_readers(self.mark.relations, wanted)
        suspects, changes = folded.suspects, folded.changes
        place = bisect_right(changes, after_sequence, key=_sequence)
        for segment in self._scan(spill, readers, after_sequence + 1):
            found: list[RowChange] = []
            for sequence, reader, row, _ in segment.rows:
                if suspects.is_empty or not suspects.concerns(reader, row):
                    found.append(reader.change(row, sequence))
            until = bisect_right(changes, segment.end - 1, lo=place, key=_sequence)
            if until > place:
                found += changes[place:until]
                found.sort(key=_sequence)
                place = until
            yield found

    def _rows(self) -> RowRecords:
        if self._spill is None:
            message = "the rows of an oversize transaction did not fit on the disk"
            raise LimitExceededError(message)
        return self._spill

    def close(self) -> None:
        """Give the spill back; idempotent. The sink calls it when it has read the rows."""
        if self._spill is not None:
            self._spill.discard()

    def _fold(
        self, spill: RowRecords, readers: dict[int, RowReader], wanted: Wanted
    ) -> Generator[None, None, _Folded]:
        """Do the first two passes, yielding nothing but turns for others."""
        suspects = _Suspects(self._bounds)
        for segment in self._scan(spill, readers):
            for _, reader, row, _ in segment.rows:
                if reader.has_key:
                    suspects.note(reader, row)
            yield
        folds: dict[int, RowFold] = {}
        if not suspects.is_empty:
            for segment in self._scan(spill, readers):
                for sequence, reader, row, size in segment.rows:
                    if suspects.concerns(reader, row):
                        fold = folds.setdefault(reader.relation.oid, RowFold())
                        fold.add(reader, row, sequence, size)
                self._check_held(folds)
                yield
        changes = [change for fold in folds.values() for change in fold.changes()]
        changes.sort(key=_sequence)
        return _Folded(wanted, suspects, changes)

    def _scan(
        self, spill: RowRecords, readers: dict[int, RowReader], first: int = 0
    ) -> Iterator[_Segment]:
        """Read the spill once from a row on; yield the wanted rows step by step."""
        raw = self.mark.raw_rows
        cleared = raw.cleared or {}
        timeline = RelationTimeline(self.mark.relations, raw.switches)
        rows: list[_ReadRow] = []
        index, end, size = -1, self._bounds.segment_rows, 0
        for index, record in enumerate(spill.records()):
            if index >= end or size >= self._bounds.segment_bytes:
                yield _Segment(rows, index)
                rows, size, end = [], 0, index + self._bounds.segment_rows
            relation = timeline.version(index, read_relation_oid(record))
            reader = readers.get(id(relation))
            if reader is not None and index >= first and index >= cleared.get(relation.oid, 0):
                row = reader.read(record, 0, len(record))
                rows.append(_ReadRow(index, reader, row, len(record)))
                size += len(record)
        yield _Segment(rows, index + 1)

    def _check_held(self, folds: dict[int, RowFold]) -> None:
        if sum(fold.size_bytes for fold in folds.values()) > self._bounds.repeated_bytes:
            message = (
                "repeated keys of an oversize transaction hold more than "
                f"OVERSIZE_REPEATED_BYTES_MAX = {self._bounds.repeated_bytes} bytes"
            )
            raise LimitExceededError(message)


def _sequence(change: RowChange) -> int:
    return change.sequence


#: One hash gives both bit numbers: its low bits, and those above them.
_SECOND_BIT_SHIFT: Final = 31


class _Suspects:
    """Hashes of keys that may occur more than once."""

    def __init__(self, bounds: OversizeBounds) -> None:
        self._bits = bounds.key_bitmap_bits
        self._keys_max = bounds.repeated_keys
        self._bitmap = bytearray((self._bits + 7) // 8)
        self._suspected: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """Tell whether no key is suspected."""
        return not self._suspected

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
