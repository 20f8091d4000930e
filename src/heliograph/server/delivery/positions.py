"""Fixing the stream position of new subscriptions: one query per tick for all of them (P3).

A subscription is owed exactly the transactions that the snapshot taken for it does not see. Those
still to come are decided one by one; those already dispatched and not yet visible to everybody
are kept in `Unsettled`. Only the snapshots taken here remove a transaction from it, in the order
in which they were taken, so that no later subscription can miss one (`replication.md` §6).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where a subscription begins.

    Attributes:
        snapshot: Transactions that it does not see are owed.
        insert_lsn: WAL insert position after the snapshot; whatever commits behind it is owed
            without asking the snapshot.
    """

    snapshot: Snapshot
    insert_lsn: Lsn

    def owes(self, xid: int, commit_lsn: Lsn) -> bool:
        """Tell whether a transaction belongs to the subscription."""
        return commit_lsn >= self.insert_lsn or not self.snapshot.sees(xid)


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where a subscription goes on that took the place of another, which was given the rest.

    Attributes:
        insert_lsn: Whatever commits from here on is owed, and nothing else.
    """

    insert_lsn: Lsn

    def owes(self, _xid: int, commit_lsn: Lsn) -> bool:
        """Tell whether a transaction belongs to the subscription."""
        return commit_lsn >= self.insert_lsn


class Unsettled:
    """Dispatched transactions that a snapshot may not see yet; nearly always empty."""

    __slots__ = ("_transactions", "restarts")

    def __init__(self) -> None:
        """Start empty."""
        self._transactions: deque[Transaction] = deque()
        #: How often another history began.
        self.restarts = 0

    def add(self, transaction: Transaction) -> None:
        """Remember a transaction that was just handed over."""
        self._transactions.append(transaction)

    def settle(self, snapshot: Snapshot) -> None:
        """Forget what the snapshot sees."""
        if self._transactions:
            self._transactions = deque(
                kept for kept in self._transactions if not snapshot.sees(kept.xid)
            )

    def not_seen_by(self, snapshot: Snapshot) -> list[Transaction]:
        """Return what the snapshot does not see, in commit order."""
        return [kept for kept in self._transactions if not snapshot.sees(kept.xid)]

    def all_seen_by(self, snapshot: Snapshot, up_to: Lsn) -> bool:
        """Tell whether the snapshot sees everything dispatched up to a commit position."""
        for kept in self._transactions:
            if kept.commit_lsn > up_to:
                return True
            if not snapshot.sees(kept.xid):
                return False
        return True

    def first_commit_lsn(self) -> Lsn | None:
        """Return where the first one commits; None if everything received is visible."""
        return self._transactions[0].commit_lsn if self._transactions else None

    def clear(self) -> None:
        """Forget everything: another history begins."""
        self._transactions.clear()
        self.restarts += 1

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._transactions)


class PositionService:
    """Takes snapshots one after the other and hands each to everybody who asked before it.

    Attributes:
        on_settled: Called whenever `Unsettled` was cleaned; set once.
    """

    def __init__(
        self, *, take: Callable[[], Awaitable[StreamPosition]], unsettled: Unsettled
    ) -> None:
        """Wire it.

        Args:
            take: Asks PostgreSQL for snapshot and insert position, in one statement.
            unsettled: Cleaned with every snapshot.
        """
        self._take = take
        self._unsettled = unsettled
        self._asking: list[Callable[[StreamPosition], None]] = []
        self._wanted = asyncio.Event()
        self._failed: list[Callable[[BaseException], None]] = []
        self.on_settled: Callable[[], None] | None = None

    def settle(self) -> None:
        """Have `Unsettled` cleaned soon, with a snapshot taken after this call."""
        self._wanted.set()

    async def fix(self, register: Callable[[StreamPosition], None]) -> None:
        """Have ``register`` called with a position taken after this call began.

        It is called synchronously with the arrival of the answer: no transaction is dispatched
        between the position and the registration.

        Raises:
            UnavailableError: If PostgreSQL does not answer; nothing was registered.
            Exception: Whatever ``register`` raised.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def accept(position: StreamPosition) -> None:
            if done.done():
                return
            try:
                register(position)
            except Exception as error:  # noqa: BLE001 - it is its caller's, who gets it; others go on
                done.set_exception(error)
            else:
                done.set_result(None)

        def refuse(error: BaseException) -> None:
            if not done.done():
                done.set_exception(error)

        self._asking.append(accept)
        self._failed.append(refuse)
        self._wanted.set()
        await done

    async def run(self, *, settle_interval_s: float) -> None:
        """Serve until cancelled; also settles at least every ``settle_interval_s`` seconds."""
        while True:
            try:
                await asyncio.wait_for(self._wanted.wait(), settle_interval_s)
            except TimeoutError:
                if not len(self._unsettled):
                    continue
            self._wanted.clear()
            await self._serve_once()

    async def _serve_once(self) -> None:
        asking, self._asking = self._asking, []
        failed, self._failed = self._failed, []
        try:
            position = await self._take_current()
        except UnavailableError as error:
            for refuse in failed:
                refuse(error)
            return
        for accept in asking:
            accept(position)
        self._unsettled.settle(position.snapshot)
        if self.on_settled is not None:
            self.on_settled()

    async def _take_current(self) -> StreamPosition:
        """Take a position of the history that is read when it arrives.

        Who began where another history ended would miss what committed before the new one begins.
        """
        while True:
            restarts = self._unsettled.restarts
            position = await self._take()
            if restarts == self._unsettled.restarts:
                return position
