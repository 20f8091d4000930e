"""Position marks: telling the channels that asked for it how far they have been given everything.

A mark follows the changes it stands for in the same write: before the connections are flushed,
every channel that was sent something is marked once, however much it was. Within a transaction that
is done only after many changes, so that a client which waits for marks sees transactions whole. A
channel that had nothing to send is marked every `limits.POSITION_IDLE_S` seconds.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.errors import UnavailableError
from heliograph.ports.clock import Clock
from heliograph.server.delivery.channel import Place
from heliograph.server.delivery.continuity import Continuity
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.positions import Unsettled
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.supervision import Supervisor

if TYPE_CHECKING:
    from heliograph.server.delivery.lane import Lane


class Places(Protocol):
    """Where lanes are; the dispatcher."""

    def finished_place(self, lane: "Lane | None") -> Place:
        """Return the place up to which a lane has given its live channels everything."""
        ...

    def last_dispatched(self) -> Lsn:
        """Return the position up to which every transaction was dispatched."""
        ...


class Marked(Protocol):
    """The marks of one channel; `channel_marks.ChannelMarks`.

    Attributes:
        told_s: When it was told a position last.
    """

    told_s: float

    def tell(self) -> bool:
        """Tell the channel its position if there is one to tell; false if that must wait."""
        ...

    def fail(self) -> None:
        """Close the channel: a bug met its marks."""
        ...


@dataclass(frozen=True, slots=True)
class MarkParts:
    """What marks are made from.

    Attributes:
        ring: The change log.
        continuity: The epoch, and what outlives the process.
        progress: How far the stream was received.
        unsettled: What may not be visible yet.
        settle: Has it looked at whether that is visible; `PositionMarks.settled` is called then.
        places: Where lanes are.
        clock: For intervals.
        counters: Totals to add to.
        supervisor: Told of what nobody foresaw.
    """

    ring: Ring
    continuity: Continuity
    progress: StreamProgress
    unsettled: Unsettled
    settle: Callable[[], None]
    places: Places
    clock: Clock
    counters: DeliveryCounters
    supervisor: Supervisor


class PositionMarks:
    """All channels that asked for positions; belongs to the event loop."""

    def __init__(self, parts: MarkParts) -> None:
        """Start without any channel."""
        self.parts = parts
        self._due: dict[Marked, None] = {}
        self._late: dict[Marked, None] = {}
        self._unsettled: dict[Marked, None] = {}
        self._is_telling_settled = False
        self._channels: dict[Marked, None] = {}
        self._awaited: Lsn = ZERO_LSN
        self._is_awaiting = False

    def __len__(self) -> int:
        """Return how many channels have started that asked for positions."""
        return len(self._channels)

    def add(self, marks: Marked) -> None:
        """Look after a channel that has started."""
        self._channels[marks] = None
        self._late[marks] = None

    def due(self, marks: Marked) -> None:
        """Mark a channel before connections are flushed next."""
        self._due[marks] = None

    def discard(self, marks: Marked) -> None:
        """Forget a channel that has ended."""
        for known in (self._channels, self._due, self._late, self._unsettled):
            known.pop(marks, None)

    def flush(self) -> None:
        """Mark every channel that was sent something; call it before connections are flushed."""
        if not self._due:
            return
        due, self._due = self._due, {}
        for marks in due:
            if not self._tell(marks):
                self._late[marks] = None

    def _tell(self, marks: Marked) -> bool:
        """Do `ChannelMarks.tell`; a bug in it ends that channel only."""
        try:
            return marks.tell()
        except Exception as error:  # noqa: BLE001 - one channel's bug must not stop the others
            self.parts.supervisor.note(error, name="mark", on_failure=marks.fail)
            return True

    async def run(self) -> None:
        """Mark what could not be marked at once, and who is idle, until cancelled."""
        while True:
            await asyncio.sleep(limits.POSITION_CHECK_INTERVAL_S)
            self.check()

    def settled(self) -> None:
        """Learn what is visible by now: those who wait for that are told."""
        waiting, self._unsettled = self._unsettled, {}
        self._is_telling_settled = True
        for marks in waiting:
            if not self._tell(marks):
                # Not at once: what a look does not show the next one may not show for hours.
                self._late[marks] = None
        self._is_telling_settled = False
        self._unsettled.clear()

    def await_settled(self, marks: Marked) -> None:
        """Have it looked at what is visible, and tell a channel then."""
        self._unsettled[marks] = None
        if not self._is_telling_settled:
            self.parts.settle()

    def await_stream(self, position: Lsn) -> None:
        """Have an idle stream moved: somebody's first mark waits until it has passed a position."""
        self._awaited = max(self._awaited, position)
        if not self._is_awaiting:
            self._is_awaiting = True
            self.parts.supervisor.spawn(self._move_stream(), name="move stream")

    async def _move_stream(self) -> None:
        try:
            # Nothing is said if it stands still: whoever waits asks again.
            with suppress(UnavailableError):
                await self.parts.progress.wait(self._awaited, limits.STREAM_WAIT_S)
        finally:
            self._is_awaiting, self._awaited = False, ZERO_LSN

    def check(self) -> None:
        """Do one round of `run`."""
        self.flush()
        late, self._late = self._late, {}
        for marks in late:
            if not self._tell(marks):
                self._late[marks] = None
        idle_since_s = self.parts.clock.monotonic_s() - limits.POSITION_IDLE_S
        for marks in tuple(self._channels):
            if marks.told_s <= idle_since_s:
                self._tell(marks)
