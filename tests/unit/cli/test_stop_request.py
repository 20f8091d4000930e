"""The first signal asks for an orderly end, the second one cuts it short."""

import asyncio
import os
import signal

import pytest

from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.stop_request import stop_on_signals


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, ExitCode.DONE),
        (signal.SIGHUP, ExitCode.DONE),
        (signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
async def test_a_signal_ends_the_wait(number, code):
    with stop_on_signals() as request:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            assert await request.wait() is number
    assert request.exit_code is code


@pytest.mark.asyncio
async def test_a_second_signal_cancels_the_main_task():
    async def command() -> None:
        with stop_on_signals() as request:
            os.kill(os.getpid(), signal.SIGTERM)
            await request.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()  # a drain that does not end

    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.gather(command())


@pytest.mark.asyncio
async def test_signals_are_given_back_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals():
        pass
    assert signal.getsignal(signal.SIGINT) in (before, signal.default_int_handler)
