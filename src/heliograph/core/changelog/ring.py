"""The ring: committed transactions kept for late and slow subscribers, by bytes, count and age.

A transaction is kept as numbers and bytes, which the garbage collector does not visit, and made
anew when it is read. What is rare in a transaction (TRUNCATE, messages, a table that changed)
keeps it as an object.

Invariants: commit positions ascend; everything that committed after `floor` and at or before
`newest` and concerns a table is in the ring; the index of a table holds exactly the transactions
with rows of that table or with a TRUNCATE of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Final

from heliograph.core.changelog.window import Window
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.relation import Relation
from heliograph.core.replication.transaction import RawRows, Transaction
from heliograph.errors import LocalProtocolError
from heliograph.limits import (
    RING_AGE_S_MAX,
    RING_BYTES_MAX,
    RING_TRANSACTION_OVERHEAD_BYTES,
    RING_TRANSACTIONS_MAX,
)


@dataclass(frozen=True, slots=True)
class RingBounds:
    """What the ring may hold; see the comments in ``limits.py``."""

    bytes_max: int = RING_BYTES_MAX
    transactions_max: int = RING_TRANSACTIONS_MAX
    age_s_max: float = RING_AGE_S_MAX


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """The state of the ring.

    Attributes:
        transactions: Kept.
        size_bytes: Bytes they take, bookkeeping included.
        oldest_age_s: Age of the oldest one, 0 if there is none.
        appended: Taken since the start.
        evicted: Of this history, dropped because a bound was reached.
        tables: Tables that the index knows.
    """

    transactions: int
    size_bytes: int
    oldest_age_s: float
    appended: int
    evicted: int
    tables: int


#: A transaction without its object: commit_lsn, end_lsn, xid, commit_time_us, number of its tuple
#: of relations, row count, rows, ends. Only atoms, so that the collector untracks it.
_Packed = tuple[int, int, int, int, int, int, bytes, bytes]


class Ring:
    """See the module. Time is an argument, in seconds of any clock that does not go back.

    Attributes:
        bounds: What it may hold.
    """

    def __init__(self, floor: Lsn, *, bounds: RingBounds | None = None) -> None:
        """Start empty.

        Args:
            floor: Where the stream starts: nothing that committed at or before it is kept.
            bounds: Other bounds than those of ``limits.py``.
        """
        self.bounds = bounds or RingBounds()
        self._age_us_max = _us(self.bounds.age_s_max)
        self._appended = 0
        self._start(floor)

    def restart(self, floor: Lsn) -> None:
        """Begin with another history: nothing that was kept continues.

        Args:
            floor: As for a new ring; may be lower than before.
        """
        self._start(floor)

    def _start(self, floor: Lsn) -> None:
        self._floor = floor
        self._newest = floor
        self._size_bytes = 0
        self._restarted_at = self._appended
        #: Ascending window columns, one element per transaction; numbers start at 0 for ever.
        self._entries: list[_Packed | Transaction] = []
        self._entries_start = 0
        self._commit_lsns = Window()
        self._appended_at_us = Window()
        self._sizes = Window()
        self._tables: dict[int, Window] = {}
        self._relations = _RelationTuples()

    @property
    def floor(self) -> Lsn:
        """Commit position up to which transactions may be missing."""
        return self._floor

    @property
    def oldest(self) -> Lsn | None:
        """Commit position of the oldest transaction kept."""
        return Lsn(self._commit_lsns[0]) if len(self._commit_lsns) else None

    @property
    def newest(self) -> Lsn:
        """Position up to which every transaction was taken."""
        return self._newest

    def covers(self, commit_lsn: Lsn) -> bool:
        """Tell whether everything that committed after a position is kept.

        False for positions beyond `newest`, too: nobody can have been told them.
        """
        return self._floor <= commit_lsn <= self.newest

    def pass_to(self, progress: Lsn) -> None:
        """Learn that every transaction that commits below a position was appended."""
        if progress > self._newest:
            self._newest = Lsn(progress - 1)

    def append(self, transaction: Transaction, now_s: float) -> None:
        """Keep a transaction, and drop the oldest ones above the bounds.

        One that concerns no table (messages only) moves `newest` and takes no place.

        Raises:
            LocalProtocolError: If it does not commit after all that were taken before.
        """
        if transaction.commit_lsn <= self.newest:
            message = "transactions must be appended in the order of their commits"
            raise LocalProtocolError(message)
        self._newest = transaction.commit_lsn
        oids = _table_oids(transaction)
        if not oids:
            return
        size = transaction.size_bytes + RING_TRANSACTION_OVERHEAD_BYTES
        number = self._commit_lsns.end
        self._entries.append(self._pack(transaction))
        self._commit_lsns.append(transaction.commit_lsn)
        self._appended_at_us.append(_us(now_s))
        self._sizes.append(size)
        self._size_bytes += size
        self._appended += 1
        for oid in oids:
            window = self._tables.get(oid)
            if window is None:
                window = self._tables[oid] = Window()
            window.append(number)
        self.evict(now_s)

    def evict(self, now_s: float) -> None:
        """Drop what is too old or too much; to be called while nothing is appended as well."""
        bounds = self.bounds
        oldest_us = _us(now_s) - self._age_us_max
        while len(self._commit_lsns) and (
            self._size_bytes > bounds.bytes_max
            or len(self._commit_lsns) > bounds.transactions_max
            or self._appended_at_us[0] < oldest_us
        ):
            self._drop_oldest()

    def after(
        self, commit_lsn: Lsn, oids: Collection[int], limit: int
    ) -> tuple[Sequence[Transaction], Lsn]:
        """Return transactions that committed after a position and concern some tables.

        Args:
            commit_lsn: The position; `covers` must be true for it.
            oids: The tables.
            limit: Transactions at the most.

        Returns:
            The transactions in commit order, and the commit position up to which nothing of these
            tables is left: `newest`, or that of the last transaction returned if ``limit`` was
            reached.

        Raises:
            LocalProtocolError: If the position is not covered: some may be missing.
        """
        if not self.covers(commit_lsn):
            message = "the ring does not reach back to the position, or was never there"
            raise LocalProtocolError(message)
        first = self._commit_lsns.first_above(commit_lsn)
        windows = [window for oid in oids if (window := self._tables.get(oid)) is not None]
        numbers: list[int] = []
        for number in merge(*(window.iterate_from(first) for window in windows)):
            if not numbers or number != numbers[-1]:
                if len(numbers) == limit:
                    break
                numbers.append(number)
        found = [self._unpack(number) for number in numbers]
        if len(found) == limit and found:
            return found, found[-1].commit_lsn
        return found, self.newest

    def statistics(self, now_s: float) -> RingStatistics:
        """Return the state."""
        return RingStatistics(
            transactions=len(self._commit_lsns),
            size_bytes=self._size_bytes,
            oldest_age_s=self._oldest_age_s(now_s),
            appended=self._appended,
            evicted=self._appended - self._restarted_at - len(self._commit_lsns),
            tables=len(self._tables),
        )

    def _oldest_age_s(self, now_s: float) -> float:
        if not len(self._appended_at_us):
            return 0.0
        return (_us(now_s) - self._appended_at_us[0]) / _US_PER_S

    def _drop_oldest(self) -> None:
        entry = self._entries[self._entries_start]
        if isinstance(entry, Transaction):
            oids = _table_oids(entry)
        else:
            oids = {relation.oid for relation in self._relations.drop(entry[4])}
        for oid in oids:
            window = self._tables[oid]
            window.drop_first()
            if not len(window):
                del self._tables[oid]
        self._floor = Lsn(self._commit_lsns[0])
        self._size_bytes -= self._sizes[0]
        for column in (self._commit_lsns, self._appended_at_us, self._sizes):
            column.drop_first()
        self._entries[self._entries_start] = _DROPPED
        self._entries_start += 1
        if self._entries_start * 2 > len(self._entries):
            del self._entries[: self._entries_start]
            self._entries_start = 0

    def _pack(self, transaction: Transaction) -> _Packed | Transaction:
        raw = transaction.raw_rows
        is_plain = (
            not transaction.messages
            and not transaction.messages_omitted
            and not transaction.truncated
            and not transaction.is_too_large
            and not transaction.changed_relations
            and not raw.switches
        )
        if not is_plain:
            return transaction
        return (
            transaction.commit_lsn,
            transaction.end_lsn,
            transaction.xid,
            transaction.commit_time_us,
            self._relations.take(transaction.relations),
            transaction.row_count,
            raw.payload,
            raw.ends,
        )

    def _unpack(self, number: int) -> Transaction:
        entry = self._entries[number - self._commit_lsns.start + self._entries_start]
        if isinstance(entry, Transaction):
            return entry
        commit_lsn, end_lsn, xid, time_us, relations, row_count, payload, ends = entry
        return Transaction(
            commit_lsn=Lsn(commit_lsn),
            end_lsn=Lsn(end_lsn),
            xid=xid,
            commit_time_us=time_us,
            relations=self._relations[relations],
            truncated=(),
            messages=(),
            row_count=row_count,
            size_bytes=len(payload) + len(ends),
            is_too_large=False,
            raw_rows=RawRows(payload, ends),
        )


#: Times are kept as integers, because `Window` holds integers.
_US_PER_S: Final = 1_000_000


def _us(seconds: float) -> int:
    return int(seconds * _US_PER_S)


_DROPPED: Final[_Packed] = (0, 0, 0, 0, 0, 0, b"", b"")


def _table_oids(transaction: Transaction) -> Collection[int]:
    if len(transaction.relations) == 1 and not transaction.truncated:
        return (transaction.relations[0].oid,)
    oids = {relation.oid for relation in transaction.relations}
    oids.update(relation.oid for relation in transaction.truncated)
    return oids


class _RelationTuples:
    """Tuples of relations by number, each kept while a packed transaction needs it."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, ...], int] = {}
        self._tuples: dict[int, tuple[Relation, ...]] = {}
        self._uses: dict[int, int] = {}
        self._next = 0

    def __getitem__(self, number: int) -> tuple[Relation, ...]:
        return self._tuples[number]

    def take(self, relations: tuple[Relation, ...]) -> int:
        """Return the number of a tuple and count one more use."""
        identity = tuple(map(id, relations))  # the tuple kept below keeps these ids valid
        number = self._numbers.get(identity)
        if number is None:
            number = self._next
            self._next += 1
            self._numbers[identity] = number
            self._tuples[number] = relations
            self._uses[number] = 0
        self._uses[number] += 1
        return number

    def drop(self, number: int) -> tuple[Relation, ...]:
        """Count one use less; forget the tuple with its last one."""
        relations = self._tuples[number]
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._tuples[number], self._uses[number]
            del self._numbers[tuple(map(id, relations))]
        return relations
