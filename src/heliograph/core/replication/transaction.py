"""Contract of a committed transaction; the assembler that makes it follows."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.relation import Relation
from heliograph.core.replication.row_change import RowChange


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What ``pg_logical_emit_message`` wrote.

    Attributes:
        transactional: Whether it belongs to its transaction (all that we act upon do).
        lsn: Where it stands in the log.
        prefix: Its prefix.
        content: Its bytes.
    """

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes


@dataclass(slots=True, eq=False)
class Transaction:
    """One committed transaction, its rows still as raw pgoutput bytes.

    Attributes:
        commit_lsn: Position of the commit record (``Begin.final_lsn``); orders transactions.
        end_lsn: First byte after it: what is acknowledged.
        xid: Low 32 bits of the transaction id.
        commit_time_us: Microseconds since 1970-01-01 UTC.
        relations: Relation versions that its rows follow, in order of first use.
        truncated: Relations emptied by TRUNCATE.
        messages: Transactional messages, in order.
        row_count: Raw row messages.
        size_bytes: Memory that the rows take.
        is_too_large: Its rows are gone (the mark that an oversize transaction leaves in the ring).
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
    _rows: bytes

    def decode(self, wanted: Container[int]) -> Sequence[RowChange]:
        """Decode and fold the rows of some tables.

        Args:
            wanted: Relation oids; rows of other tables are skipped without decoding.

        Returns:
            Changes in order of ``sequence``.
        """
        raise NotImplementedError
