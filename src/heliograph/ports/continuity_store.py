"""The seam to whatever keeps, outside PostgreSQL, how far the change stream was received."""

from dataclasses import dataclass
from typing import Protocol

from heliograph.core.changelog.history import KnownHistory
from heliograph.core.replication.lsn import Lsn


@dataclass(frozen=True, slots=True)
class ContinuityRecord:
    """What must outlive the process for positions to outlive it.

    Attributes:
        history: What was read, and how far it was received at the most.
        nonce: Drawn anew whenever continuity ends; part of the epoch.
        key: Authenticates the positions that clients bring back.
    """

    history: KnownHistory
    nonce: bytes
    key: bytes


class ContinuityStore(Protocol):
    """Keeps one record. Nothing here blocks for longer than a write to a local file."""

    def load(self) -> ContinuityRecord | None:
        """Return what was kept; None if nothing was, or nothing that can be read."""
        ...

    def save(self, record: ContinuityRecord) -> None:
        """Replace the record, durably."""
        ...

    def note_received(self, received: Lsn) -> None:
        """Raise ``history.received`` of the record that was saved or loaded last."""
        ...

    def sync(self) -> None:
        """Have what was noted written to disk; may take long, so it is called in a thread."""
        ...
