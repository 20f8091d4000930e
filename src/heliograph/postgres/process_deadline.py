"""Waiting for other processes: real seconds, a bound, a short pause between two looks.

These waits are about a PostgreSQL process on this machine. No virtual clock can move that process,
so this is the one place of the package that reads the monotonic clock itself.
"""

import time
from collections.abc import Callable

from heliograph.errors import UnavailableError

#: Seconds between two looks at a process or a file. Smaller: busy waiting; larger: a start that
#: takes 0.1 s is noticed late.
_PAUSE_S = 0.01


class ProcessDeadline:
    """A point in real time until which a condition on another process may come true."""

    __slots__ = ("_ends_s", "seconds")

    def __init__(self, seconds: float) -> None:
        """Let the deadline end `seconds` from now."""
        self.seconds = seconds
        self._ends_s = _monotonic_s() + seconds

    def remaining_s(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self._ends_s - _monotonic_s())

    def is_over(self) -> bool:
        """Return whether the time has run out."""
        return self.remaining_s() <= 0

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Look until `condition` holds or the time is over; return whether it held.

        Blocks its thread: call it through ``asyncio.to_thread`` from a coroutine.
        """
        while not condition():
            if self.is_over():
                return False
            time.sleep(_PAUSE_S)
        return True

    def require(self, condition: Callable[[], bool], what: str) -> None:
        """Look until `condition` holds.

        Raises:
            UnavailableError: If the time is over first; the message names `what` was awaited.
        """
        if not self.wait_until(condition):
            message = f"waited {self.seconds:g} s for {what}"
            raise UnavailableError(message)


def _monotonic_s() -> float:
    return time.monotonic()  # noqa: TID251 - see the module: processes live in real time
