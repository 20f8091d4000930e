"""Who does not read what waits is closed: after a while, or sooner if memory runs short (S34)."""

import asyncio
from typing import Protocol


class Consumer(Protocol):
    """A connection's outbound buffer, as the watch sees it.

    Attributes:
        is_watched: Whether the watch looks after it; set by the watch.
    """

    is_watched: bool

    def waiting_bytes(self) -> int:
        """Return the bytes queued that the network has not taken."""
        ...

    def taken_bytes(self) -> int:
        """Return the bytes that the network has taken since the start."""
        ...

    def wake(self) -> None:
        """Let those who wait for room go on, if there is."""
        ...

    def give_up(self, reason: str) -> None:
        """Drop what is queued and close the connection."""
        ...


class SlowConsumerWatch:
    """Looks after the connections whose clients have not taken everything yet; one timer for all.

    The timer runs only while there is such a connection.
    """

    def __init__(self, *, write_deadline_s: float, bytes_total_max: int) -> None:
        """Watch nobody yet.

        Args:
            write_deadline_s: Seconds in which a client must take something of what waits.
            bytes_total_max: Bytes that may wait for all clients together, at each look. Beyond
                them those who have taken nothing for the longest time go first.
        """
        self._write_deadline_s = write_deadline_s
        self._bytes_total_max = bytes_total_max
        self._interval_s = min(1.0, write_deadline_s / 4)
        self._waiting: dict[Consumer, tuple[int, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, consumer: Consumer) -> None:
        """Watch a connection until everything was taken."""
        if not consumer.is_watched:
            consumer.is_watched = True
            loop = asyncio.get_running_loop()
            self._waiting[consumer] = (consumer.taken_bytes(), loop.time())
            if self._timer is None:
                self._timer = loop.call_later(self._interval_s, self._look)

    def remove(self, consumer: Consumer) -> None:
        """Stop watching a connection."""
        consumer.is_watched = False
        self._waiting.pop(consumer, None)

    def _look(self) -> None:
        """Look after all, and again later; a bug in closing one does not end the watch."""
        loop = asyncio.get_running_loop()
        try:
            self._look_after_all(loop.time())
            self._shed()
        finally:
            is_needed = bool(self._waiting)
            self._timer = loop.call_later(self._interval_s, self._look) if is_needed else None

    def _look_after_all(self, now_s: float) -> None:
        """Close who took nothing in time; wake who may feed again."""
        for consumer, (taken_before, since_s) in list(self._waiting.items()):
            if consumer.waiting_bytes() == 0:
                self.remove(consumer)
                consumer.wake()
                continue
            taken = consumer.taken_bytes()
            if taken != taken_before:
                self._waiting[consumer] = (taken, now_s)
                consumer.wake()
            elif now_s - since_s >= self._write_deadline_s:
                self.remove(consumer)
                consumer.give_up("nothing was read in time")

    def _shed(self) -> None:
        """Close the slowest until the rest may wait; of equally slow ones, who holds the most."""
        sizes = {consumer: consumer.waiting_bytes() for consumer in self._waiting}
        excess = sum(sizes.values()) - self._bytes_total_max
        if excess <= 0:
            return

        def slowest_first(consumer: Consumer) -> tuple[float, int]:
            return self._waiting[consumer][1], -sizes[consumer]

        for consumer in sorted(sizes, key=slowest_first):
            if excess <= 0:
                return
            excess -= sizes[consumer]
            self.remove(consumer)
            consumer.give_up("more waits for all clients together than may")
