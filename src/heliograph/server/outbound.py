"""What waits to be sent to one client: bounded, flushed once per tick of the event loop.

K frames queued in one tick go out in one write; a write each costs twelve times as much per frame
at K = 16 (measured). Frames stay here while the transport holds more than it should, so that a
reader who stalls costs at most `OUTBOUND_BYTES_MAX`, and a buffer of ours can be dropped, which
the transport's can not.

Two marks steer who feeds us: above `OUTBOUND_BYTES_HIGH` nothing more should be queued, at
`OUTBOUND_BYTES_LOW` it may go on. A client that takes nothing at all for `WRITE_DEADLINE_S` while
something waits, or for whom more than the maximum waits, is a slow consumer and is closed
(`slow_consumers`).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from heliograph import limits
from heliograph.core.wire.change_frame import ChangeFrames
from heliograph.core.wire.websocket_frame import server_frame_header
from heliograph.server.commit_to_write import CommitToWrite
from heliograph.server.slow_consumers import SlowConsumerWatch


class SocketTransport(Protocol):
    """What a connection needs from the WebSocket below it."""

    def write(self, frames: bytes) -> int:
        """Write whole frames, as they stand on the wire; return `buffered_bytes` afterwards."""
        ...

    def buffered_bytes(self) -> int:
        """Return the bytes written that the network has not taken yet."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind what was written; cut the line if the peer does not answer."""
        ...

    def abort(self) -> None:
        """Cut the line at once."""
        ...


@dataclass(frozen=True, slots=True)
class OutboundLimits:
    """Bytes and seconds; every default and its reason is in `heliograph.limits`."""

    bytes_high: int = limits.OUTBOUND_BYTES_HIGH
    bytes_low: int = limits.OUTBOUND_BYTES_LOW
    bytes_max: int = limits.OUTBOUND_BYTES_MAX
    bytes_total_max: int = limits.OUTBOUND_BYTES_TOTAL_MAX
    write_deadline_s: float = limits.WRITE_DEADLINE_S


@dataclass(slots=True)
class Traffic:
    """Totals of one process, as plain integers: cheaper than a metric per frame."""

    bytes_received: int = 0
    bytes_sent: int = 0
    frames_sent: int = 0
    writes: int = 0


class TickFlush:
    """Flushes every connection that something was queued for: once per tick, by one callback."""

    def __init__(
        self, after: Callable[[], None], *, before: Callable[[], None] | None = None
    ) -> None:
        """Begin with nothing due.

        Args:
            after: Called when all are flushed: what they shared during the tick may go.
            before: Called before they are flushed: what it queues leaves with the rest.
        """
        self._after = after
        self._before = before
        self._due: list[Outbound] = []

    def add(self, outbound: "Outbound") -> None:
        """Flush a connection when the callbacks that are running now are done."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._flush)
        self._due.append(outbound)

    def _flush(self) -> None:
        """Flush in the order of queueing; a bug in one does not hold up the others."""
        try:
            if self._before is not None:
                self._before()
        finally:
            self._flush_due()

    def _flush_due(self) -> None:
        due, self._due = self._due, []
        due.reverse()
        try:
            while due:
                due.pop().flush()
        finally:
            for outbound in reversed(due):
                self.add(outbound)
            self._after()


@dataclass(frozen=True, slots=True)
class OutboundParts:
    """What the outbound buffers of all connections share.

    Attributes:
        ticks: Flushes them.
        watch: Closes clients that stop reading.
        traffic: Totals to add to.
        commit_to_write: Told the lag of every write with changes.
        limits: The marks.
    """

    ticks: TickFlush
    watch: SlowConsumerWatch
    traffic: Traffic
    commit_to_write: CommitToWrite
    limits: OutboundLimits


class Outbound:
    """One connection's outbound buffer.

    Every delivered frame passes here: what is asked for each of them is answered without a call
    into the transport where that is possible.

    Attributes:
        is_watched: Whether `SlowConsumerWatch` looks after it; set there.
    """

    __slots__ = (
        "_bytes_high",
        "_commit_to_write",
        "_held_bytes",
        "_is_closed",
        "_is_paused",
        "_is_scheduled",
        "_limits",
        "_oldest_commit_us",
        "_on_slow",
        "_pieces",
        "_staged_bytes",
        "_ticks",
        "_traffic",
        "_transport",
        "_waiters",
        "_watch",
        "_written_bytes",
        "is_watched",
    )

    def __init__(
        self,
        transport: SocketTransport,
        *,
        parts: OutboundParts,
        on_slow: Callable[[str], None],
    ) -> None:
        """Begin empty.

        Args:
            transport: Where frames go.
            parts: What all buffers share.
            on_slow: Called once with the reason when this client is a slow consumer.
        """
        self._transport = transport
        self._ticks = parts.ticks
        self._watch = parts.watch
        self._traffic = parts.traffic
        self._commit_to_write = parts.commit_to_write
        self._oldest_commit_us = 0
        self._limits = parts.limits
        self._bytes_high = parts.limits.bytes_high
        self._on_slow = on_slow
        self._pieces: list[bytes] = []
        self._staged_bytes = 0
        self._held_bytes = 0
        self._written_bytes = 0
        self.is_watched = False
        self._is_scheduled = False
        self._is_paused = False
        self._is_closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def send(self, opcode: int, pieces: Sequence[bytes]) -> None:
        """Queue one frame; never blocks. After the end it does nothing."""
        if not self._is_closed:
            size = sum(map(len, pieces))
            header = server_frame_header(opcode, size)
            self._queue(len(header) + size, (header, *pieces))

    def send_change(self, frames: ChangeFrames, ids: Sequence[int], data: bytes) -> None:
        """Queue one change; like `send`."""
        if not self._is_closed:
            size, pieces = frames.framed(ids, data)
            if not self._oldest_commit_us:
                self._oldest_commit_us = self._commit_to_write.current_us
            self._queue(size, pieces)

    def offer_change(self, frames: ChangeFrames, ids: Sequence[int], data: bytes) -> bool:
        """Queue one change if there is room; tell whether it did.

        `has_room` and `send_change` in one, written out: half of what a frame costs before it is
        written are calls.
        """
        if (
            self._staged_bytes + self._held_bytes >= self._bytes_high
            and self.waiting_bytes() >= self._bytes_high
        ):
            return False
        if self._is_closed:
            return True
        size, pieces = frames.framed(ids, data)
        if not self._oldest_commit_us:
            self._oldest_commit_us = self._commit_to_write.current_us
        self._pieces += pieces
        self._staged_bytes += size
        self._traffic.frames_sent += 1
        if not self._is_scheduled:
            self._is_scheduled = True
            self._ticks.add(self)
        elif self._staged_bytes > self._bytes_high:
            self._drop_if_full()
        return True

    def flush(self) -> None:
        """Hand over what one tick has queued, unless the transport is full."""
        self._is_scheduled = False
        if self._is_closed:
            return
        waiting = self.waiting_bytes() if self._is_paused else self._write()
        if waiting:
            if not self.is_watched:
                self._watch.add(self)
            if waiting > self._limits.bytes_max:
                self._give_up_full()
        if self._waiters:
            self.wake()

    def waiting_bytes(self) -> int:
        """Return the bytes queued that the network has not taken."""
        return self._staged_bytes + self._transport.buffered_bytes()

    def taken_bytes(self) -> int:
        """Return the bytes that the network has taken since the start."""
        return self._written_bytes - self._transport.buffered_bytes()

    def has_room(self) -> bool:
        """Tell whether more should be queued now.

        What the transport holds only shrinks between two flushes, so that the figure of the last
        one is enough to say yes.
        """
        bytes_high = self._bytes_high
        return (
            self._staged_bytes + self._held_bytes < bytes_high or self.waiting_bytes() < bytes_high
        )

    async def wait_room(self) -> None:
        """Wait until the buffer has drained to its low mark, or the connection is gone."""
        while not self._is_closed and not self.has_room():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def pause(self) -> None:
        """Learn that the transport holds more than it should."""
        self._is_paused = True

    def resume(self) -> None:
        """Learn that the transport has room again."""
        self._is_paused = False
        self._commit_to_write.end_turn()
        self.flush()

    def wake(self) -> None:
        """Let those who wait for room go on, if there is."""
        if self._waiters and (self._is_closed or self.waiting_bytes() <= self._limits.bytes_low):
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def give_up(self, reason: str) -> None:
        """Treat the client as a slow consumer: drop what is staged, tell the connection, once."""
        if not self._is_closed:
            self._discard()
            self._on_slow(reason)

    def close(self, code: int, reason: str) -> None:
        """Write what is staged and a close frame; nothing can be queued afterwards."""
        if not self._is_closed:
            self._write()
            self.end()
            self._transport.close(code, reason)

    def end(self) -> None:
        """Stop for good: the connection is gone or going."""
        self._is_closed = True
        self._discard()
        self._watch.remove(self)
        self.wake()

    def _queue(self, size: int, pieces: Sequence[bytes]) -> None:
        """Keep one whole frame and have it flushed."""
        self._pieces += pieces
        self._staged_bytes += size
        self._traffic.frames_sent += 1
        if not self._is_scheduled:
            self._is_scheduled = True
            self._ticks.add(self)
        elif self._staged_bytes > self._bytes_high:
            self._drop_if_full()

    def _write(self) -> int:
        """Write all staged frames at once; return what waits afterwards."""
        staged_bytes = self._staged_bytes
        if not staged_bytes:
            return self._transport.buffered_bytes()
        traffic = self._traffic
        traffic.bytes_sent += staged_bytes
        traffic.writes += 1
        self._written_bytes += staged_bytes
        self._staged_bytes = 0
        pieces = self._pieces
        frames = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held_bytes = held_bytes = self._transport.write(frames)
        if self._oldest_commit_us:
            self._commit_to_write.written(self._oldest_commit_us)
            self._oldest_commit_us = 0
        return held_bytes

    def _discard(self) -> None:
        """Forget what is staged."""
        self._pieces.clear()
        self._staged_bytes = 0
        self._oldest_commit_us = 0

    def _drop_if_full(self) -> None:
        """Give up on a client for whom more waits than may."""
        if self.waiting_bytes() > self._limits.bytes_max:
            self._give_up_full()

    def _give_up_full(self) -> None:
        """Give up on a client for whom too much waits."""
        self.give_up(f"more than {self._limits.bytes_max} bytes wait to be read")
