"""What both change sources share: options, what they say of themselves, starting again.

`replication_source` streams, `polling_source` polls; both run one attempt after the other here.
"""

import asyncio
import random  # noqa: TID251 - only the type: the caller gives the generator
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from heliograph import limits
from heliograph.config import Secret
from heliograph.core.replication.assembler import Assembler, AssemblerBounds
from heliograph.core.replication.stream import ReplicationStream
from heliograph.errors import (
    LimitExceededError,
    RemoteProtocolError,
    ReplicationError,
    StorageError,
)
from heliograph.ports.change_source import ChangeSink, SourceState, SourceStatus
from heliograph.postgres.replication_connection import UNDEFINED_OBJECT
from heliograph.postgres.spill import spills_in

#: After these a new connection may help.
_PASSING_ERRORS = (ReplicationError, RemoteProtocolError, LimitExceededError, StorageError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """What a source reads.

    Attributes:
        database_url: Direct connection to the primary; its login needs the REPLICATION right.
        slot_name: The slot; made if it does not exist.
        publications: What is read.
        spill_folder: Where oversize transactions wait; None stands for the temporary folder.
        slot_wal_bytes_max: WAL that the slot may hold back before we drop it; 0 for no such limit.
        assembler_bounds: Other bounds than those of ``limits.py``, for tests.
    """

    database_url: Secret
    slot_name: str
    publications: tuple[str, ...]
    spill_folder: Path | None = None
    slot_wal_bytes_max: int = limits.SLOT_WAL_BYTES_MAX
    assembler_bounds: AssemblerBounds | None = None


class Backoff:
    """Waits between attempts: doubling, with jitter so that servers do not come back in step."""

    def __init__(self, generator: random.Random) -> None:
        """Begin with the shortest wait."""
        self._generator = generator
        self._wait_s = limits.RECONNECT_WAIT_FIRST_S

    def next_wait_s(self) -> float:
        """Return the seconds to wait now: between half of the wait and the whole of it."""
        wait_s = self._wait_s
        self._wait_s = min(wait_s * 2, limits.RECONNECT_WAIT_LAST_S)
        return wait_s * (0.5 + self._generator.random() / 2)

    def reset(self) -> None:
        """Begin anew: something worked."""
        self._wait_s = limits.RECONNECT_WAIT_FIRST_S


class ReaderState:
    """The stream of one source across its connections, and what the source does at the moment.

    Attributes:
        stream: What was received and handed on.
        backoff: Waits between attempts; reset it when an attempt worked.
        starts: Attempts that came up.
        bytes_received: Of the stream.
        must_renew_slot: Whether the slot can not continue and must be made anew.
    """

    def __init__(self, options: ReaderOptions, generator: random.Random) -> None:
        """Begin before the first attempt; ``generator`` gives the jitter."""
        self._assembler = Assembler(
            make_spill=spills_in(options.spill_folder), bounds=options.assembler_bounds
        )
        self.stream = ReplicationStream(self._assembler)
        self.backoff = Backoff(generator)
        self.starts = 0
        self.bytes_received = 0
        self.must_renew_slot = False
        self._state = SourceState.STARTING
        self._reason = "not started"

    def starting(self, reason: str) -> None:
        """Note what the source waits for before it can read."""
        self._state, self._reason = SourceState.STARTING, reason

    def streaming(self) -> None:
        """Note that it reads now."""
        self._state, self._reason = SourceState.STREAMING, ""
        self.must_renew_slot = False
        self.starts += 1

    async def run(self, sink: ChangeSink, attempt: Callable[[], Awaitable[None]]) -> None:
        """Run one attempt after the other until cancelled.

        Raises:
            ConfigurationError: If an attempt raised it: no repetition can help.
        """
        try:
            while True:
                try:
                    await attempt()
                except _PASSING_ERRORS as error:
                    self._note_failure(sink, error)
                await asyncio.sleep(self.backoff.next_wait_s())
        finally:
            self._state, self._reason = SourceState.WAITING, "stopped"

    def _note_failure(self, sink: ChangeSink, error: Exception) -> None:
        was_streaming = self._state is SourceState.STREAMING
        self._state, self._reason = SourceState.WAITING, str(error)
        if was_streaming:
            sink.source_lost(str(error))
            # "publication does not exist" at a position before it was made (again): the slot
            # can not get past it.
            if isinstance(error, ReplicationError):
                self.must_renew_slot = error.sqlstate == UNDEFINED_OBJECT

    def status(self) -> SourceStatus:
        """Return what the source does and how far it is."""
        counts = self._assembler.statistics
        return SourceStatus(
            state=self._state,
            reason=self._reason,
            starts=self.starts,
            bytes_received=self.bytes_received,
            progress=self.stream.progress,
            confirmed=self.stream.confirmed,
            transactions=counts.transactions,
            transactions_oversize=counts.transactions_oversize,
            transactions_repeated=counts.transactions_repeated,
            rows=counts.rows,
            messages_ignored=counts.messages_ignored,
        )
