"""The seam between whatever reads committed transactions and whoever delivers them."""

from dataclasses import dataclass
from typing import Protocol

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.transaction import Transaction


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """Which history the source reads; another one means that nothing continues.

    Attributes:
        system_identifier: From IDENTIFY_SYSTEM, decimal text.
        timeline: From IDENTIFY_SYSTEM.
        slot_name: The replication slot.
        slot_is_new: Whether this start created the slot.
        start_lsn: First position that this connection may deliver.
    """

    system_identifier: str
    timeline: int
    slot_name: str
    slot_is_new: bool
    start_lsn: Lsn


class ChangeSink(Protocol):
    """Receives whole transactions in commit order, on the event loop."""

    def source_started(self, identity: SourceIdentity) -> None:
        """Learn that a connection is up; transactions already received may come again."""
        ...

    def source_lost(self, reason: str) -> None:
        """Learn that the connection is gone; the source reconnects by itself."""
        ...

    def receive_transaction(self, transaction: Transaction) -> None:
        """Take one whole transaction; must not block."""
        ...

    async def receive_oversize(self, transaction: OversizeTransaction) -> None:
        """Take one transaction too large for memory; may wait while it is delivered."""
        ...

    def receive_progress(self, progress: Lsn) -> None:
        """Learn that every transaction that commits below ``progress`` was handed over."""
        ...

    def acknowledged_lsn(self) -> Lsn:
        """Return the position that the slot may confirm: all below it is kept by us."""
        ...

    def has_room(self) -> bool:
        """Tell whether more may be read now (back-pressure)."""
        ...

    async def wait_room(self) -> None:
        """Wait until `has_room` is true."""
        ...


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
