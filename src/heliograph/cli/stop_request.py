"""Being asked to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal is gone).

A long-running command waits for the request, then ends in order: stop accepting, tell clients to
reconnect, flush, stop PostgreSQL. A second signal cuts the orderly end short by cancelling the
command's main task. `run_until_stopped` is the same for a server, which knows how to drain.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Generator
from typing import Final

from heliograph.cli.exit_codes import ExitCode
from heliograph.server.uvicorn_server import StopRequest

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignal:
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
def stop_on_signals() -> Generator[StopSignal]:
    """Take the signals over while the block lasts. Call it inside the command's main task.

    Raises:
        RuntimeError: If called outside a task.
    """
    request = StopSignal(_current_task())
    with _signals_to(request.receive_signal):
        yield request


async def run_until_stopped(run: Callable[[StopRequest], Awaitable[object]]) -> ExitCode:
    """Run a server until it ends or a signal asks it to; return the code to exit with.

    While the server starts, a signal cancels the start, which undoes what was begun (an embedded
    PostgreSQL is stopped again). Once it serves, the first signal drains it and the second cuts the
    sockets. Call it as the command's main task.

    Args:
        run: Given the request to wait for.
    """
    main_task = _current_task()
    stop = StopRequest()

    def receive_signal(number: signal.Signals) -> None:
        stop.request(number)
        if not stop.is_awaited:
            main_task.cancel()

    with _signals_to(receive_signal):
        try:
            await run(stop)
        except asyncio.CancelledError:
            if stop.signal_number is None:
                raise
    is_interrupted = stop.signal_number == signal.SIGINT
    return ExitCode.INTERRUPTED if is_interrupted else ExitCode.DONE


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        message = "signals need a running task"
        raise RuntimeError(message)
    return task


@contextlib.contextmanager
def _signals_to(receive: Callable[[signal.Signals], None]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, receive, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
