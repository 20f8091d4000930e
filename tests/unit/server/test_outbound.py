import asyncio
import contextlib

import pytest

from heliograph.core.wire.websocket_frame import TEXT
from heliograph.server.outbound import Outbound, OutboundLimits, SlowConsumerWatch, Traffic

pytestmark = pytest.mark.asyncio

LIMITS = OutboundLimits(bytes_high=100, bytes_low=40, bytes_max=300, write_deadline_s=0.2)


class FakeTransport:
    """Holds what is written until the test takes it."""

    def __init__(self):
        self.staged, self.writes, self.taken = [], [], 0
        self.closed = None

    def stage(self, _opcode, pieces):
        self.staged.append(b"".join(pieces))
        return len(self.staged[-1])

    def flush(self):
        self.writes.append(b"".join(self.staged))
        self.staged.clear()

    def discard(self):
        self.staged.clear()

    def buffered_bytes(self):
        return sum(map(len, self.writes)) - self.taken

    def close(self, code, reason):
        self.closed = (code, reason)

    def abort(self):
        self.closed = "aborted"


class Bench:
    def __init__(self, limits=LIMITS):
        self.transport, self.traffic, self.slow = FakeTransport(), Traffic(), []
        self.watch = SlowConsumerWatch(limits.write_deadline_s)
        self.outbound = Outbound(
            self.transport,
            watch=self.watch,
            traffic=self.traffic,
            on_slow=self.slow.append,
            limits=limits,
        )

    def send(self, size):
        self.outbound.send(TEXT, (b"x" * size,))

    async def wait(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


async def test_the_frames_of_one_tick_are_one_write():
    bench = Bench()
    for size in (1, 2, 3):
        bench.send(size)
    assert bench.transport.writes == []
    await asyncio.sleep(0)
    assert bench.transport.writes == [b"x" * 6]
    bench.send(4)
    await asyncio.sleep(0)
    assert len(bench.transport.writes) == 2
    assert (bench.traffic.frames_sent, bench.traffic.writes, bench.traffic.bytes_sent) == (4, 2, 10)
    bench.outbound.end()


async def test_room_ends_at_the_high_mark_and_comes_back_at_the_low_one():
    bench = Bench()
    bench.send(99)
    assert bench.outbound.has_room()
    bench.send(1)
    assert not bench.outbound.has_room()
    waiting = asyncio.create_task(bench.outbound.wait_room())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.transport.taken = 50
    bench.outbound.resume()
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.transport.taken = 60
    bench.outbound.resume()
    async with asyncio.timeout(5):
        await waiting
    bench.outbound.end()


async def test_waiting_with_room_returns_at_once_and_the_end_wakes_everybody():
    bench = Bench()
    await bench.outbound.wait_room()
    bench.send(200)
    first = asyncio.create_task(bench.outbound.wait_room())
    second = asyncio.create_task(bench.outbound.wait_room())
    await asyncio.sleep(0)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    bench.outbound.end()
    async with asyncio.timeout(5):
        await second


async def test_a_full_transport_gets_nothing_more_until_it_resumes():
    bench = Bench()
    bench.outbound.pause()
    bench.send(10)
    await asyncio.sleep(0)
    assert bench.transport.writes == []
    assert bench.outbound.waiting_bytes() == 10
    bench.outbound.resume()
    assert bench.transport.writes == [b"x" * 10]
    bench.outbound.end()


async def test_too_much_waiting_is_a_slow_consumer_at_once():
    bench = Bench()
    for _ in range(31):
        bench.send(10)
    assert bench.slow == ["more than 300 bytes wait to be read"]
    assert bench.transport.staged == []
    bench.outbound.end()


async def test_one_frame_beyond_the_maximum_is_found_when_it_is_flushed():
    bench = Bench()
    bench.outbound.pause()
    bench.send(301)
    await asyncio.sleep(0)
    assert len(bench.slow) == 1
    bench.outbound.end()


async def test_no_progress_for_the_deadline_is_a_slow_consumer():
    bench = Bench()
    bench.send(10)
    await bench.wait(lambda: bench.slow)
    assert bench.slow == ["nothing was read in time"]
    bench.outbound.end()


async def test_any_progress_starts_the_deadline_anew():
    bench = Bench(OutboundLimits(write_deadline_s=0.3))
    bench.send(1000)
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    def goes_on():
        bench.transport.taken += 1
        return loop.time() - started_s >= 1.0

    await bench.wait(goes_on)
    assert bench.slow == []
    await bench.wait(lambda: bench.slow)
    bench.outbound.end()


async def test_the_watch_sleeps_when_everything_was_taken_and_wakes_who_waits():
    bench = Bench()
    bench.send(150)
    waiting = asyncio.create_task(bench.outbound.wait_room())
    await asyncio.sleep(0)
    bench.transport.taken = 150
    async with asyncio.timeout(5):
        await waiting
    await bench.wait(lambda: bench.watch._timer is None)
    assert bench.slow == []


async def test_close_writes_the_rest_first_and_nothing_afterwards():
    bench = Bench()
    bench.send(5)
    bench.outbound.close(1012, "why")
    assert bench.transport.writes == [b"x" * 5]
    assert bench.transport.closed == (1012, "why")
    bench.send(5)
    bench.outbound.close(1000, "again")
    bench.outbound.give_up("again")
    bench.outbound.resume()
    await asyncio.sleep(0)
    assert bench.transport.writes == [b"x" * 5]
    assert bench.transport.closed == (1012, "why")
    assert bench.slow == []
