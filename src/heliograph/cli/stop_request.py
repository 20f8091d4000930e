"""Being asked to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal is gone).

A long-running command waits for the request, then ends in order: stop accepting, tell clients to
reconnect, flush, stop PostgreSQL. A second signal cuts the orderly end short by cancelling the
command's main task.
"""

import asyncio
import contextlib
import signal
from collections.abc import Generator
from typing import Final

from heliograph.cli.exit_codes import ExitCode

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self, main_task: asyncio.Task[object]) -> None:
        """Cancel `main_task` when asked twice."""
        self._main_task = main_task
        self._event = asyncio.Event()
        self.signal: signal.Signals | None = None

    async def wait(self) -> signal.Signals:
        """Wait until the process is asked to stop; return the signal."""
        await self._event.wait()
        return self.signal or signal.SIGTERM

    def receive_signal(self, number: signal.Signals) -> None:
        """Take note of a signal; the second one cancels the main task."""
        if self.signal is not None:
            self._main_task.cancel()
            return
        self.signal = number
        self._event.set()

    @property
    def exit_code(self) -> ExitCode:
        """Return the code to exit with: a Ctrl-C interrupts, the others end in order."""
        return ExitCode.INTERRUPTED if self.signal is signal.SIGINT else ExitCode.DONE


@contextlib.contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Take the signals over while the block lasts. Call it inside the command's main task.

    Raises:
        RuntimeError: If called outside a task.
    """
    task = asyncio.current_task()
    if task is None:
        message = "stop_on_signals needs a running task"
        raise RuntimeError(message)
    loop = asyncio.get_running_loop()
    request = StopRequest(task)
    for number in _SIGNALS:
        loop.add_signal_handler(number, request.receive_signal, number)
    try:
        yield request
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
