"""The first signal asks for an orderly end, the second one cuts it short."""

import asyncio
import os
import signal

import pytest

from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.stop_request import run_until_stopped, stop_on_signals


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


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, ExitCode.DONE),
        (signal.SIGHUP, ExitCode.DONE),
        (signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
@pytest.mark.parametrize("is_serving", [True, False])
async def test_a_server_drains_and_one_that_starts_undoes_its_start(number, code, is_serving):
    ended = []

    async def serve(stop) -> None:
        try:
            os.kill(os.getpid(), number)
            await (stop.wait_requested() if is_serving else asyncio.Event().wait())
            ended.append("drained")
        except asyncio.CancelledError:
            ended.append("undone")
            raise

    async with asyncio.timeout(5):
        assert await run_until_stopped(serve) is code
    assert ended == ["drained" if is_serving else "undone"]


@pytest.mark.asyncio
async def test_a_server_that_ends_by_itself_is_done_and_a_foreign_cancellation_goes_on():
    async def serve(_stop) -> None:
        await asyncio.sleep(0)

    assert await run_until_stopped(serve) is ExitCode.DONE

    async def wait(_stop) -> None:
        await asyncio.Event().wait()

    task = asyncio.ensure_future(run_until_stopped(wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
