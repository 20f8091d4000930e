"""The seam between whatever reads committed transactions and whoever delivers them."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from heliograph.core.changelog.history import StreamStart
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.transaction import Transaction


@dataclass(frozen=True, slots=True)
class SourceIdentity(StreamStart):
    """Which history the source reads; another one means that nothing continues.

    Attributes:
        is_polled: Whether everything behind the confirmed position is decoded again all the time,
            so that the sink should have as much confirmed as it can.
        slot_wal_bytes: WAL that is held back for the slot at the most before the slot is lost or
            dropped; None if there is no limit.
    """

    is_polled: bool = False
    slot_wal_bytes: int | None = None


class ChangeSink(Protocol):
    """Receives whole transactions in commit order, on the event loop.

    Each transaction comes once: what PostgreSQL sends again after a reconnect is dropped by
    position before it gets here.
    """

    def source_started(self, identity: SourceIdentity) -> None:
        """Learn that a connection is up.

        Where it does not continue what was received before (`core.changelog.history`), positions
        may even be lower than those known. From this call on `acknowledged_lsn` must speak of the
        new history.
        """
        ...

    def source_lost(self, reason: str) -> None:
        """Learn that the connection is gone; the source reconnects by itself."""
        ...

    def receive_transaction(self, transaction: Transaction) -> None:
        """Take one whole transaction; must not block."""
        ...

    async def receive_oversize(self, transaction: OversizeTransaction) -> None:
        """Take one transaction too large for memory, and close it when its rows were read.

        May wait while it is delivered: the stream is not read in the meantime, but kept alive. A
        sink whose delivery itself waits for the stream returns at once and reads the rows later.
        """
        ...

    def receive_progress(self, progress: Lsn) -> None:
        """Learn that every transaction that commits below ``progress`` was handed over."""
        ...

    def acknowledged_lsn(self) -> Lsn:
        """Return the position that the slot may confirm.

        Every transaction that commits below it is kept, so that it need not be sent again. It
        may trail far behind, so that a restart receives the latest transactions again. Once it
        reaches the end of the last transaction received, the source lets the slot follow the
        server's position, so that quiet tables do not hold WAL back.
        """
        ...

    def has_room(self) -> bool:
        """Tell whether more may be read now (back-pressure)."""
        ...

    async def wait_room(self) -> None:
        """Wait until `has_room` is true."""
        ...


class SourceState(Enum):
    """What a source does at the moment."""

    #: Connecting, creating the slot, or waiting for somebody who holds it.
    STARTING = "starting"
    #: Reading; nothing is missing.
    STREAMING = "streaming"
    #: Broken off; it waits before it tries again.
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a source says of itself, for `/ready` and the metrics.

    Attributes:
        state: What it does.
        reason: What it waits for, in words for the operator; empty while streaming.
        starts: Connections that came up since the process started.
        bytes_received: Of the stream, since the process started.
        progress: Everything that commits below it was handed on.
        confirmed: What the slot was last told to be kept.
        transactions: Handed on.
        transactions_oversize: Of these, too large for memory.
        transactions_repeated: Sent again by PostgreSQL and dropped.
        rows: Row changes in those handed on, before folding.
        messages_ignored: Non-transactional logical messages.
    """

    state: SourceState
    reason: str
    starts: int
    bytes_received: int
    progress: Lsn
    confirmed: Lsn
    transactions: int
    transactions_oversize: int
    transactions_repeated: int
    rows: int
    messages_ignored: int


class ChangeSource(Protocol):
    """Reads committed transactions and hands them to a sink."""

    async def run(self, sink: ChangeSink) -> None:
        """Read until cancelled; reconnect with backoff after every fault.

        Raises:
            ConfigurationError: If no repetition can help (no such privilege, wal_level, …).
        """
        ...

    def request_progress(self) -> None:
        """Ask the server to say soon how far it has read; cheap, may be called often."""
        ...

    def status(self) -> SourceStatus:
        """Return what it does and how far it is."""
        ...
