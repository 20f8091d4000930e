"""The shop simulator: trades in the demo at a human pace, so that a visitor sees live changes.

It survives a restart of the database and forgets nothing by it: all state is in the tables. What
one action is stands in `trading`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random  # noqa: TID251 - the type only; the instance comes from the caller

from heliograph import limits
from heliograph.apps.optics.trading import Trader, has_branches
from heliograph.errors import ConfigurationError, StorageError, UnavailableError
from heliograph.ports.clock import Clock
from heliograph.ports.sql_session import OpenSqlSession, SqlSession


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the simulator trades.

    Attributes:
        pause_s_min: Seconds from one action to the next, at least.
        pause_s_max: At the most; drawn evenly between the two.
    """

    pause_s_min: float = limits.SIMULATOR_PAUSE_S_MIN
    pause_s_max: float = limits.SIMULATOR_PAUSE_S_MAX


@dataclass(frozen=True, slots=True)
class SimulatorStatistics:
    """Counts since the simulator was made.

    Attributes:
        trades: Actions committed.
        outages: Times the database was gone or broke an action off.
        refusals: Actions that PostgreSQL refused, for instance because somebody changed a table.
    """

    trades: int
    outages: int
    refusals: int


class ShopSimulator:
    """Trades until it is cancelled."""

    def __init__(
        self,
        open_session: OpenSqlSession,
        *,
        random: Random,
        clock: Clock,
        pace: Pace | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make a simulator; nothing happens before `run`.

        Args:
            open_session: Opens a session of a role that may write the demo's tables.
            random: Decides what happens; the same seed on the same tables trades the same.
            clock: Keeps the pace: the time an action takes is part of the pause after it.
            pace: How fast.
            sleep: Waits that many seconds; tests pass a virtual one.
        """
        self._open_session = open_session
        self._random = random
        self._trader = Trader(random)
        self._clock = clock
        self._pace = pace or Pace()
        self._sleep = sleep
        self._next_at_s = clock.monotonic_s()
        self._retry_wait_s = limits.SIMULATOR_RETRY_WAIT_FIRST_S
        self._trades = 0
        self._outages = 0
        self._refusals = 0

    async def run(self) -> None:
        """Trade until cancelled; a cancelled action is rolled back as a whole.

        A database that is gone is tried again with a wait that doubles.

        Raises:
            ConfigurationError: If the database holds no demo to trade in, at the start or after
                the connection was lost.
        """
        while True:
            try:
                async with self._open_session() as session:
                    await _require_demo(session)
                    while True:
                        await self._trade_and_pause(session)
            except UnavailableError:
                self._outages += 1
            except StorageError:
                self._refusals += 1
            await self._sleep(self._retry_wait_s)
            self._retry_wait_s = min(self._retry_wait_s * 2, limits.SIMULATOR_RETRY_WAIT_LAST_S)

    def statistics(self) -> SimulatorStatistics:
        """Return the counts."""
        return SimulatorStatistics(self._trades, self._outages, self._refusals)

    async def _trade_and_pause(self, session: SqlSession) -> None:
        if await self._trader.trade(session) is not None:
            self._trades += 1
        self._retry_wait_s = limits.SIMULATOR_RETRY_WAIT_FIRST_S
        now_s = self._clock.monotonic_s()
        pause_s = self._random.uniform(self._pace.pause_s_min, self._pace.pause_s_max)
        # After a long stall the pace starts afresh; missed actions are not made up for.
        self._next_at_s = max(self._next_at_s + pause_s, now_s)
        await self._sleep(self._next_at_s - now_s)


async def _require_demo(session: SqlSession) -> None:
    if not await has_branches(session):
        message = "the shop simulator trades only in the demo's organizations, and finds none"
        raise ConfigurationError(message)
