"""One question to the database for all who ask it before it was begun.

Whoever asks gets an answer that was asked for after his call, as if he had asked alone: thousands
who join at once cause two questions instead of thousands.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from heliograph.errors import UnavailableError

_Answer = TypeVar("_Answer")


class SharedAnswer(Generic[_Answer]):
    """Belongs to one event loop."""

    def __init__(self, ask: Callable[[], Awaitable[_Answer]]) -> None:
        """Ask nothing yet.

        Args:
            ask: Asks the database.
        """
        self._ask = ask
        self._asking = asyncio.Lock()
        self._begun = 0
        self._last: _Answer | None = None
        self._error: UnavailableError | None = None

    async def get(self) -> _Answer:
        """Return an answer to a question that was begun after this call.

        Raises:
            UnavailableError: If the database does not answer.
        """
        begun_before = self._begun
        async with self._asking:
            # Who was cut off while he asked has left neither an answer nor an error.
            is_answered = self._last is not None or self._error is not None
            if not is_answered or self._begun == begun_before:
                self._begun += 1
                self._last = self._error = None
                try:
                    self._last = await self._ask()
                except UnavailableError as error:
                    self._error = error
            if self._last is not None:
                return self._last
        message = f"the database did not answer: {self._error}"
        raise UnavailableError(message) from self._error
