"""How far the change stream has been read, and waiting until it has passed a position.

A judgement saw everything that committed below the WAL insert position taken with it; once the
stream has passed that position, every change of rights that the judgement may have seen is known
here. On a busy server the stream passes by itself; on an idle one the walsender is asked, and when
unflushed WAL stands in the way a tiny transaction is written that flushes it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush

from heliograph import limits
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.errors import UnavailableError


def _never() -> bool:
    return False


class StreamProgress:
    """The stream's position and those who wait for it; belongs to the event loop."""

    def __init__(
        self, *, request: Callable[[], None], nudge: Callable[[], Awaitable[None]]
    ) -> None:
        """Wire the two ways to move an idle stream.

        Args:
            request: Asks the walsender to say how far it is; cheap.
            nudge: Writes an empty transactional message, which flushes the WAL before it.
        """
        self._request = request
        self._nudge = nudge
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = 0
        self._nudging: asyncio.Future[None] | None = None
        self.passed: Lsn = ZERO_LSN
        #: Whether the reader waits for those who wait here: then the stream can not pass.
        self.is_held_up: Callable[[], bool] = _never

    def advance(self, progress: Lsn) -> None:
        """Record that every transaction committing below ``progress`` was handed over."""
        if progress <= self.passed:
            return
        self.passed = progress
        while self._waiting and self._waiting[0][0] <= progress:
            _, _, future = heappop(self._waiting)
            if not future.done():
                future.set_result(None)

    def restart(self, progress: Lsn) -> None:
        """Begin with another history, whose positions may be lower."""
        self.passed = progress

    async def wait(self, position: Lsn, timeout_s: float) -> None:
        """Wait until the stream has passed ``position``.

        Raises:
            UnavailableError: If it did not within ``timeout_s`` seconds, or can not because the
                reader is held up.
        """
        if self.passed >= position:
            return
        self._request()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tickets += 1
        heappush(self._waiting, (position, self._tickets, future))
        done, _ = await asyncio.wait((future,), timeout=limits.NUDGE_AFTER_S)
        if done:
            return
        if self.is_held_up():
            future.cancel()
            message = "the reader is held up by what waits to be judged"
            raise UnavailableError(message)
        await self._write_nudge()
        self._request()
        done, _ = await asyncio.wait((future,), timeout=timeout_s)
        if not done:
            future.cancel()
            message = "the change stream did not pass the judgement's position in time"
            raise UnavailableError(message)

    async def _write_nudge(self) -> None:
        """Write one nudge for all who wait at the moment."""
        if self._nudging is not None:
            await asyncio.wait((self._nudging,))
            return
        self._nudging = asyncio.get_running_loop().create_future()
        try:
            await self._nudge()
        finally:
            self._nudging.set_result(None)
            self._nudging = None
