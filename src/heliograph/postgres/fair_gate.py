"""A bounded number of places, given to whoever has used them least.

For work of which one client can cause much: in order of arrival, whoever asks for a hundred slow
judgements at once would have everybody else wait for all of them.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Final

from heliograph.limits import FAIR_GATE_HALF_LIFE_S, FAIR_GATE_KEYS_MAX, JUDGEMENT_SLOW_S

#: How much a key has used: seconds, and when that was written down.
_Use = tuple[float, float]
#: A hash stands for its key, which may be kilobytes: two keys with one hash share a share.
_Key = tuple[int, int]

_NOTHING: Final[_Use] = (0.0, 0.0)


class FairGate:
    """Belongs to one event loop.

    Who waits is let in by the time that his user has had a place, then by the time that this part
    of the user's work has (all anonymous clients are one user), then by arrival. Less than
    `JUDGEMENT_SLOW_S` counts as nothing, and what was used is forgotten by half in each
    `FAIR_GATE_HALF_LIFE_S`.
    """

    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        """Begin with all places free.

        Args:
            places: How many may be in at once.
            clock: Seconds, monotonic.
        """
        self._free = places
        self._clock = clock
        #: In order of arrival.
        self._waiting: dict[asyncio.Future[None], _Key] = {}
        self._uses: dict[int, _Use] = {}

    @asynccontextmanager
    async def place(self, user: Hashable, part: Hashable) -> AsyncGenerator[None]:
        """Wait for a place and hold it.

        Args:
            user: Whose time it is.
            part: Which part of the user's work it is.
        """
        key = (hash(user), hash((user, part)))
        await self._enter(key)
        began_s = self._clock()
        try:
            yield
        finally:
            self._charge(key, self._clock() - began_s)
            self._hand_on()

    async def _enter(self, key: _Key) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = key
        try:
            await turn
        except asyncio.CancelledError:
            if self._waiting.pop(turn, None) is None:
                self._hand_on()
            raise

    def _hand_on(self) -> None:
        """Give a place that was left to the next one."""
        waiting = [turn for turn in self._waiting if not turn.done()]
        if not waiting:
            self._free += 1
            return
        turn = min(waiting, key=self._rank)
        del self._waiting[turn]
        turn.set_result(None)

    def _rank(self, turn: asyncio.Future[None]) -> tuple[float, ...]:
        return tuple(self._used_s(each) // JUDGEMENT_SLOW_S for each in self._waiting[turn])

    def _used_s(self, key: int) -> float:
        used_s, noted_s = self._uses.get(key, _NOTHING)
        return used_s * math.exp2((noted_s - self._clock()) / FAIR_GATE_HALF_LIFE_S)

    def _charge(self, key: _Key, took_s: float) -> None:
        now_s = self._clock()
        for each in key:
            self._uses[each] = (self._used_s(each) + took_s, now_s)
        if len(self._uses) > FAIR_GATE_KEYS_MAX:
            by_use = sorted(self._uses, key=self._used_s, reverse=True)
            self._uses = {each: self._uses[each] for each in by_use[: FAIR_GATE_KEYS_MAX // 2]}
