"""Who may read the ring at the moment: a few channels at once, the others wait for their turn.

When thousands of clients come back together, all that they missed can not be matched, judged and
sent at once without those who never left noticing, and PostgreSQL judges for a few at a time
anyway. A channel holds its place for one batch and never while it waits for its client. Those
whose judgements may take long have places of their own, given to who has used them least.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from heliograph import limits
from heliograph.postgres.fair_gate import FairGate
from heliograph.server.delivery.lane import Lane


class CatchUpPlaces:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        """Begin with all places free."""
        self._quick = asyncio.Semaphore(limits.CATCH_UPS_AT_ONCE_MAX)
        self._slow = FairGate(limits.CATCH_UPS_AT_ONCE_MAX, _now_s)

    @asynccontextmanager
    async def place(self, lane: Lane) -> AsyncGenerator[None]:
        """Wait for a place for a channel of a lane, and hold it."""
        # A turn of the loop for each: what has nothing to wait for would let all of them follow it
        # in the same one.
        if lane.is_slow:
            async with self._slow.place((lane.role, lane.claims_json), lane.judged):
                yield
                await asyncio.sleep(0)
        else:
            async with self._quick:
                yield
                await asyncio.sleep(0)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
