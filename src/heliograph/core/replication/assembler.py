"""Puts pgoutput messages together to whole transactions; nothing leaves before Commit.

Rows are not decoded here: each one stays as the bytes that came, and is later read with the
relation version that preceded it. A transaction whose rows exceed the memory bound goes to a spill
and comes out as an `OversizeTransaction`.

What was handed out once is not handed out again: after a reconnect PostgreSQL sends everything
again from the confirmed position, and transactions at or below `last_commit_lsn` are dropped.
"""

import contextlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from heliograph.core.replication import pgoutput
from heliograph.core.replication.lsn import ZERO_LSN
from heliograph.core.replication.oversize import OversizeTransaction, Spill
from heliograph.core.replication.partition_leaves import PartitionLeaves
from heliograph.core.replication.pgoutput import Begin, Commit, LogicalMessage, Truncate
from heliograph.core.replication.relation import Relation
from heliograph.core.replication.transaction import NO_ROWS, RawRows, Transaction
from heliograph.errors import LimitExceededError, RemoteProtocolError, StorageError
from heliograph.limits import (
    OVERSIZE_SPILL_BYTES_MAX,
    RELATIONS_MAX,
    TRANSACTION_BYTES_IN_MEMORY_MAX,
    TRANSACTION_MESSAGES_BYTES_MAX,
)

_ROW_TAGS = frozenset({pgoutput.INSERT, pgoutput.UPDATE, pgoutput.DELETE})


@dataclass(frozen=True, slots=True)
class AssemblerBounds:
    """Bytes that one transaction may take; see the comments in ``limits.py``."""

    memory_bytes: int = TRANSACTION_BYTES_IN_MEMORY_MAX
    spill_bytes: int = OVERSIZE_SPILL_BYTES_MAX
    message_bytes: int = TRANSACTION_MESSAGES_BYTES_MAX


@dataclass(slots=True)
class AssemblerStatistics:
    """Counts since the start.

    Attributes:
        transactions: Handed out, oversize ones included.
        transactions_oversize: Of these, oversize.
        transactions_repeated: Dropped, because they had been handed out before.
        rows: Row messages of transactions handed out.
        messages_ignored: Non-transactional logical messages.
    """

    transactions: int = 0
    transactions_oversize: int = 0
    transactions_repeated: int = 0
    rows: int = 0
    messages_ignored: int = 0


class _Open:
    """The transaction between its Begin and its Commit."""

    __slots__ = (
        "begin",
        "cleared",
        "is_oversize",
        "is_repeated",
        "message_bytes",
        "messages",
        "messages_omitted",
        "relations",
        "row_bytes",
        "row_count",
        "rows",
        "spill",
        "switches",
        "truncated",
        "used",
    )

    def __init__(self, begin: Begin, *, is_repeated: bool) -> None:
        self.begin = begin
        self.is_repeated = is_repeated
        self.rows: list[bytes] = []
        self.row_count = 0
        self.row_bytes = 0
        #: Version that the next row of a table follows; None if another one was described since.
        self.used: dict[int, Relation | None] = {}
        self.relations: list[Relation] = []
        self.switches: list[tuple[int, Relation]] = []
        self.truncated: dict[int, Relation] = {}
        self.cleared: dict[int, int] = {}
        self.messages: list[LogicalMessage] = []
        self.message_bytes = 0
        self.messages_omitted = 0
        self.is_oversize = False
        #: Where the rows of an oversize one are; None if the disk does not take them.
        self.spill: Spill | None = None


class Assembler:
    """Feeds on pgoutput messages; see the module.

    Attributes:
        last_commit_lsn: Commit position of the last transaction handed out.
        statistics: Counts.
    """

    def __init__(
        self, *, make_spill: Callable[[], Spill], bounds: AssemblerBounds | None = None
    ) -> None:
        """Start with an unknown stream.

        Args:
            make_spill: Makes the place for one oversize transaction; may raise `StorageError`.
            bounds: Other bounds than those of ``limits.py``, for tests.
        """
        self._make_spill = make_spill
        self._bounds = bounds or AssemblerBounds()
        #: Versions sent on this connection; the server relies on our keeping them.
        self._relations: dict[int, Relation] = {}
        #: The same as they were sent, and of those the one that came last.
        self._described: dict[int, Relation] = {}
        self._described_last: Relation | None = None
        self._leaves = PartitionLeaves()
        #: Last version seen in this process, across connections.
        self._known: dict[int, Relation] = {}
        #: Changed since the last transaction that was handed out.
        self._changed: dict[int, Relation] = {}
        self._open: _Open | None = None
        self.last_commit_lsn = ZERO_LSN
        self.statistics = AssemblerStatistics()

    @property
    def is_in_transaction(self) -> bool:
        """Tell whether a Begin was received whose Commit was not."""
        return self._open is not None

    def reset(self) -> None:
        """Forget what belongs to the connection: it is gone. What was handed out stays so."""
        if self._open is not None and self._open.spill is not None:
            self._open.spill.discard()
        self._open = None
        self._relations.clear()
        self._described.clear()
        self._described_last = None
        if len(self._leaves) > RELATIONS_MAX:
            self._leaves.forget()

    def forget_history(self) -> None:
        """Forget which transactions were handed out, too: the source reads another history."""
        self.reset()
        self._leaves.forget()
        self.last_commit_lsn = ZERO_LSN

    def receive(self, payload: bytes) -> Transaction | OversizeTransaction | None:
        """Take one pgoutput message; return the transaction that it completes.

        The caller must hand a returned transaction on before it feeds the next message.

        Raises:
            RemoteProtocolError: If the message is malformed or comes out of order. Reconnect and
                `reset`.
            LimitExceededError: If the connection described too many tables; as above.
        """
        if payload and payload[0] in _ROW_TAGS:
            self._receive_row(payload)
            return None
        self._described_last = None
        match pgoutput.decode_message(payload):
            case Begin() as begin:
                self._receive_begin(begin)
            case Commit() as commit:
                return self._receive_commit(commit)
            case Relation() as relation:
                self._receive_relation(relation)
            case Truncate() as truncate:
                self._receive_truncate(truncate)
            case LogicalMessage() as message:
                self._receive_logical_message(message)
            case _:  # Type and Origin carry nothing that we use; rows were taken above.
                self._current("type or origin")
        return None

    def _current(self, what: str) -> _Open:
        if self._open is None:
            message = f"pgoutput sent a {what} outside a transaction"
            raise RemoteProtocolError(message)
        return self._open

    def _receive_begin(self, begin: Begin) -> None:
        if self._open is not None:
            message = "pgoutput sent Begin inside a transaction"
            raise RemoteProtocolError(message)
        self._open = _Open(begin, is_repeated=begin.commit_lsn <= self.last_commit_lsn)

    def _receive_row(self, payload: bytes) -> None:
        current = self._current("row")
        oid = pgoutput.read_relation_oid(payload)
        if self._described_last is not None:
            self._note_leaf(oid, self._described_last)
        if current.used.get(oid) is None:
            self._use(current, oid)
        current.row_count += 1
        if current.is_repeated:
            return
        current.row_bytes += len(payload)
        if current.is_oversize:
            self._spill_row(current, payload)
            return
        current.rows.append(payload)
        if current.row_bytes > self._bounds.memory_bytes:
            self._start_spill(current)

    def _note_leaf(self, oid: int, described: Relation) -> None:
        """Take in what the description before a row says of the partition that the row is in."""
        self._described_last = None
        root = self._described.get(oid)
        if root is not None and described.oid != oid:
            self._leaves.note(root, described)
            self._follow(self._leaves.narrowed(root))

    def _use(self, current: _Open, oid: int) -> None:
        """Note the version of a table that its next rows follow."""
        relation = self._version(oid)
        if oid in current.used:
            current.switches.append((current.row_count, relation))
        current.used[oid] = relation
        current.relations.append(relation)

    def _version(self, oid: int) -> Relation:
        try:
            return self._relations[oid]
        except KeyError as cause:
            message = f"pgoutput sent a change of table {oid} before describing it"
            raise RemoteProtocolError(message) from cause

    def _start_spill(self, current: _Open) -> None:
        rows, current.rows = current.rows, []
        current.is_oversize = True
        with contextlib.suppress(StorageError):  # no spill: the rows are lost, which is reported
            current.spill = self._make_spill()
        for row in rows:
            self._spill_row(current, row)

    def _spill_row(self, current: _Open, payload: bytes) -> None:
        """Write a row; a disk that does not take it costs the rows, not the stream."""
        if current.spill is None:
            return
        if current.row_bytes <= self._bounds.spill_bytes:
            with contextlib.suppress(StorageError):  # reported by OversizeTransaction.segments
                current.spill.append(payload)
                return
        current.spill.discard()
        current.spill = None

    def _receive_relation(self, relation: Relation) -> None:
        self._described[relation.oid] = self._described_last = relation
        self._follow(self._leaves.narrowed(relation))

    def _follow(self, relation: Relation) -> None:
        """Make a version the one that the next rows of its table follow."""
        known = self._known.get(relation.oid)
        if known is not None and known == relation:
            relation = known
        else:
            self._remember(relation)
            self._changed[relation.oid] = relation
        self._relations[relation.oid] = relation
        if len(self._relations) > RELATIONS_MAX:
            message = f"one connection described more than RELATIONS_MAX = {RELATIONS_MAX} tables"
            raise LimitExceededError(message)
        used = self._open.used if self._open is not None else {}
        if used.get(relation.oid, relation) is not relation:
            used[relation.oid] = None

    def _remember(self, relation: Relation) -> None:
        """Keep the newest version; the longest unchanged one gives way when there are too many."""
        self._known.pop(relation.oid, None)
        self._known[relation.oid] = relation
        if len(self._known) > RELATIONS_MAX:
            del self._known[next(iter(self._known))]

    def _receive_truncate(self, truncate: Truncate) -> None:
        current = self._current("truncate")
        for oid in truncate.relation_oids:
            current.truncated[oid] = self._version(oid)
            current.cleared[oid] = current.row_count

    def _receive_logical_message(self, message: LogicalMessage) -> None:
        if not message.transactional:
            self.statistics.messages_ignored += 1
            return
        current = self._current("transactional message")
        size = len(message.content) + len(message.prefix)
        if current.message_bytes + size > self._bounds.message_bytes:
            current.messages_omitted += 1
            return
        current.message_bytes += size
        current.messages.append(message)

    def _receive_commit(self, commit: Commit) -> Transaction | OversizeTransaction | None:
        current = self._current("commit")
        if commit.commit_lsn != current.begin.commit_lsn or commit.end_lsn < commit.commit_lsn:
            message = "pgoutput sent a Commit that does not belong to its Begin"
            raise RemoteProtocolError(message)
        self._open = None
        if current.is_repeated:
            self.statistics.transactions_repeated += 1
            return None
        transaction = self._build(current, commit)
        self._changed.clear()
        self.last_commit_lsn = commit.commit_lsn
        self.statistics.transactions += 1
        self.statistics.rows += current.row_count
        if not current.is_oversize:
            return transaction
        self.statistics.transactions_oversize += 1
        return OversizeTransaction(transaction, current.spill)

    def _build(self, current: _Open, commit: Commit) -> Transaction:
        rows = current.rows
        raw = NO_ROWS
        if current.row_count == 1 and rows:
            raw = RawRows(rows[0], cleared=current.cleared or None)
        elif current.row_count:
            raw = RawRows(
                b"".join(rows),
                _ends(rows),
                switches=tuple(current.switches),
                cleared=current.cleared or None,
            )
        return Transaction(
            commit_lsn=commit.commit_lsn,
            end_lsn=commit.end_lsn,
            xid=current.begin.xid,
            commit_time_us=commit.commit_time_us,
            relations=tuple(current.relations),
            truncated=tuple(current.truncated.values()),
            messages=tuple(current.messages),
            row_count=current.row_count,
            size_bytes=len(raw.payload) + len(raw.ends) + current.message_bytes,
            is_too_large=current.is_oversize,
            raw_rows=raw,
            changed_relations=tuple(self._changed.values()),
            messages_omitted=current.messages_omitted,
        )


def _ends(rows: list[bytes]) -> bytes:
    """Return where each row ends in the joined bytes, as unsigned 32-bit integers."""
    ends = array("I")
    end = 0
    for row in rows:
        end += len(row)
        ends.append(end)
    return ends.tobytes()
