"""Trials of policies that passed a moment ago, so that joins at once cause one and not thousands.

A trial asks whether a table's policies work for a role at all; the answer is the same for all of
its tokens. Who joined a moment earlier was not refused either: so long an answer counts.
"""

import asyncio
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from heliograph import limits
from heliograph.ports.clock import Clock


class Trial:
    """One look at what was found out.

    Attributes:
        is_needed: Whether nothing has passed a moment ago.
        has_passed: To be set if the trial passes.
    """

    __slots__ = ("has_passed", "is_needed")

    def __init__(self, *, is_needed: bool) -> None:
        """Begin before the trial."""
        self.is_needed = is_needed
        self.has_passed = False


class RecentTrials:
    """Belongs to one event loop."""

    def __init__(self, clock: Clock) -> None:
        """Start with none."""
        self._clock = clock
        #: In order of time.
        self._passed_s: dict[Hashable, float] = {}
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def trial(self, question: Hashable) -> AsyncGenerator[Trial]:
        """Wait until nobody else tries the same, and say whether it must be tried.

        Args:
            question: What is tried.
        """
        lock = self._locks.get(question)
        if lock is None:
            lock = self._locks[question] = asyncio.Lock()
        async with lock:
            self._forget_old()
            trial = Trial(is_needed=question not in self._passed_s)
            began_s = self._clock.monotonic_s()
            yield trial
            if trial.has_passed:
                self._passed_s[question] = began_s

    def _forget_old(self) -> None:
        oldest_s = self._clock.monotonic_s() - limits.TRIAL_AGE_S_MAX
        while self._passed_s:
            question = next(iter(self._passed_s))
            if self._passed_s[question] > oldest_s:
                return
            del self._passed_s[question]
