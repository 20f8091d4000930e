"""A committed transaction, kept as the raw bytes of its rows and decoded when somebody asks.

Raw bytes, because the ring keeps hundreds of thousands of transactions: decoded rows take three
times the memory and, being many objects, twenty times the pause of the garbage collector.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.pgoutput import LogicalMessage, read_relation_oid
from heliograph.core.replication.relation import Relation
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.row_fold import RowFold
from heliograph.core.replication.row_message import (
    RowReader,
    RowVersions,
    Wanted,
    make_readers,
)
from heliograph.errors import LocalProtocolError

__all__ = ["NO_ROWS", "LogicalMessage", "RawRows", "Transaction", "Wanted"]


class RawRows(NamedTuple):
    """The row messages of a transaction, joined.

    Attributes:
        payload: The messages, one after the other.
        ends: Where each one ends in ``payload``: native unsigned 32-bit integers. Empty if there
            is only one message.
        switches: Relation versions that replaced another one in mid-transaction, as
            ``(index of the first row message that follows it, version)``, ascending.
        cleared: Relation oid -> index of the row message after its last TRUNCATE; rows before it
            left no trace.
    """

    payload: bytes
    ends: bytes = b""
    switches: tuple[tuple[int, Relation], ...] = ()
    cleared: Mapping[int, int] | None = None


NO_ROWS: Final = RawRows(b"")


@dataclass(slots=True, eq=False)
class Transaction:
    """One committed transaction, its rows still as raw pgoutput bytes.

    Attributes:
        commit_lsn: Position of the commit record (``Begin.final_lsn``); orders transactions.
        end_lsn: First byte after it: what is acknowledged.
        xid: Low 32 bits of the transaction id.
        commit_time_us: Microseconds since 1970-01-01 UTC.
        relations: Relation versions that its rows follow, in order of first use.
        truncated: Relations emptied by TRUNCATE, each once.
        messages: Transactional messages, in order.
        row_count: Raw row messages.
        size_bytes: Memory that the rows and messages take.
        is_too_large: Its rows are gone (the mark that an oversize transaction leaves in the ring).
        raw_rows: The rows.
        changed_relations: Relations whose description came with this transaction and differs from
            the last one known to this process, or was not known before.
        messages_omitted: Transactional messages dropped because together they took more than
            ``limits.TRANSACTION_MESSAGES_BYTES_MAX``.
    """

    commit_lsn: Lsn
    end_lsn: Lsn
    xid: int
    commit_time_us: int
    relations: tuple[Relation, ...]
    truncated: tuple[Relation, ...]
    messages: tuple[LogicalMessage, ...]
    row_count: int
    size_bytes: int
    is_too_large: bool
    raw_rows: RawRows = NO_ROWS
    changed_relations: tuple[Relation, ...] = ()
    messages_omitted: int = 0

    def decode(self, wanted: Wanted) -> Sequence[RowChange]:
        """Decode and fold the rows of some tables; the rules are those of `row_fold`.

        Args:
            wanted: Relation oid -> positions of the primary key in ``Relation.columns``; rows of
                other tables are skipped without decoding. None stands for the columns of the
                replica identity: right for DEFAULT and USING INDEX; with FULL it means that the
                whole row is the key, for tables without a primary key. If a table changed in
                mid-transaction the positions are those of its last version in ``relations``.

        Returns:
            Changes in order of ``sequence``. Rows of a table that stand before its last TRUNCATE
            are left out: `truncated` tells what became of them.

        Raises:
            LocalProtocolError: If the rows are gone (`is_too_large`).
            RemoteProtocolError: If a wanted row is malformed or does not fit its relation.
        """
        if self.is_too_large:
            message = "the rows of an oversize transaction are read from its segments"
            raise LocalProtocolError(message)
        readers = make_readers(self.relations, wanted)
        if not readers:
            return ()
        raw = self.raw_rows
        if self.row_count == 1:
            (reader,) = readers.values()
            if raw.cleared and raw.cleared.get(reader.relation.oid):
                return ()
            return (reader.change(reader.read(raw.payload, 0, len(raw.payload)), 0),)
        return _decode_many(self, readers)


def iterate_rows(
    relations: Sequence[Relation], raw: RawRows
) -> Iterator[tuple[int, Relation, int, int]]:
    """Yield ``(index, relation version, start, end)`` of each row message."""
    timeline = RelationTimeline(relations, raw.switches)
    ends = memoryview(raw.ends).cast("I") if raw.ends else (len(raw.payload),)
    start = 0
    for index, end in enumerate(ends):
        yield index, timeline.version(index, read_relation_oid(raw.payload, start)), start, end
        start = end


class RelationTimeline:
    """Tells which relation version the row at an index follows; asked in ascending order."""

    __slots__ = ("_current", "_switches", "_switches_done")

    def __init__(
        self, relations: Sequence[Relation], switches: Sequence[tuple[int, Relation]]
    ) -> None:
        """Begin with the first version of each table."""
        self._current = {relation.oid: relation for relation in reversed(relations)}
        self._switches = switches
        self._switches_done = 0

    def version(self, index: int, oid: int) -> Relation:
        """Return the version of a table that the row message at ``index`` follows."""
        while (
            self._switches_done < len(self._switches)
            and self._switches[self._switches_done][0] <= index
        ):
            relation = self._switches[self._switches_done][1]
            self._current[relation.oid] = relation
            self._switches_done += 1
        return self._current[oid]


def _decode_many(transaction: Transaction, readers: Mapping[int, RowReader]) -> list[RowChange]:
    raw = transaction.raw_rows
    cleared = raw.cleared or {}
    tables: dict[int, list[tuple[int, RowReader, RowVersions, int]]] = {}
    for index, relation, start, end in iterate_rows(transaction.relations, raw):
        reader = readers.get(id(relation))
        if reader is None or index < cleared.get(relation.oid, 0):
            continue
        row = reader.read(raw.payload, start, end)
        tables.setdefault(relation.oid, []).append((index, reader, row, end - start))
    changes: list[RowChange] = []
    for rows in tables.values():
        changes += _fold_table(rows)
    if len(tables) > 1:
        changes.sort(key=lambda change: change.sequence)
    return changes


def _fold_table(rows: Sequence[tuple[int, RowReader, RowVersions, int]]) -> list[RowChange]:
    """Fold the rows of one table; nearly always each key occurs once and there is nothing to do."""
    if rows[0][1].has_key:
        keys = [key for _, reader, row, _ in rows for key in reader.keys(row)]
        if len(set(keys)) < len(keys):
            fold = RowFold()
            for index, reader, row, size in rows:
                fold.add(reader, row, index, size)
            return fold.changes()
    return [reader.change(row, index) for index, reader, row, _ in rows]
