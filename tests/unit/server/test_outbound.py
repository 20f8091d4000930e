import asyncio
import contextlib

import pytest

from heliograph.core.wire.change_frame import SharedChangeFrames
from heliograph.core.wire.messages import SerializerVersion
from heliograph.core.wire.websocket_frame import TEXT, server_frame_header
from heliograph.server.commit_to_write import CommitToWrite
from heliograph.server.outbound import (
    Outbound,
    OutboundLimits,
    OutboundParts,
    TickFlush,
    Traffic,
)
from heliograph.server.slow_consumers import SlowConsumerWatch

pytestmark = pytest.mark.asyncio

LIMITS = OutboundLimits(bytes_high=100, bytes_low=40, bytes_max=300, write_deadline_s=0.2)


def header_bytes(size):
    return 2 if size < 128 else 4


def frame(size):
    """Return a whole frame of that many bytes."""
    payload = b"x" * (size - header_bytes(size))
    return server_frame_header(TEXT, len(payload)) + payload


class FakeTransport:
    """Holds what is written until the test takes it."""

    def __init__(self):
        self.writes, self.taken = [], 0
        self.closed = None

    def write(self, frames):
        self.writes.append(frames)
        return self.buffered_bytes()

    def buffered_bytes(self):
        return sum(map(len, self.writes)) - self.taken

    def close(self, code, reason):
        self.closed = (code, reason)

    def abort(self):
        self.closed = "aborted"


class Bench:
    def __init__(self, limits=LIMITS, ticks=None, watch=None):
        self.transport, self.traffic, self.slow = FakeTransport(), Traffic(), []
        self.lags, self.now_s = CommitToWrite((0.5, 1.0, 5.0), self), 1_000.0
        self.watch = watch or SlowConsumerWatch(
            write_deadline_s=limits.write_deadline_s, bytes_total_max=limits.bytes_total_max
        )
        self.parts = OutboundParts(
            ticks=TickFlush(lambda: None) if ticks is None else ticks,
            watch=self.watch,
            traffic=self.traffic,
            commit_to_write=self.lags,
            limits=limits,
        )
        self.outbound = Outbound(self.transport, parts=self.parts, on_slow=self.slow.append)

    def send(self, size):
        self.outbound.send(TEXT, (frame(size)[header_bytes(size) :],))

    def send_change(self, commit_s):
        frames = SharedChangeFrames().get("realtime:x", SerializerVersion.V2, is_legacy=False)
        self.lags.current_us = int(commit_s * 1e6)
        self.outbound.send_change(frames, [1], b"{}")
        self.lags.current_us = 0

    def unix_s(self):
        return self.now_s

    def monotonic_s(self):
        return self.now_s

    def written(self):
        """Return the cumulated buckets and the sum."""
        (family,) = self.lags.collect()
        *buckets, _, total = [sample.value for sample in family.samples]
        return buckets, total

    async def wait(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


class VirtualTime:
    """The event loop's clock, which stands still unless it is told to pass."""

    def __init__(self, monkeypatch):
        loop = asyncio.get_running_loop()
        self._now_s = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now_s)

    async def passes(self, seconds):
        self._now_s += seconds
        for _ in range(3):
            await asyncio.sleep(0)


async def test_the_lag_of_a_write_is_that_of_its_oldest_change_and_includes_waiting():
    bench = Bench()
    bench.send_change(999.6)
    bench.send_change(999.9)
    bench.outbound.flush()
    assert bench.written() == ([1, 1, 1, 1], pytest.approx(0.4))
    bench.outbound.pause()
    bench.send_change(1_000.0)
    bench.outbound.flush()
    bench.now_s += 3.0
    assert bench.written()[0] == [1, 1, 1, 1]
    bench.outbound.resume()
    assert bench.written() == ([1, 1, 2, 2], pytest.approx(3.4))


async def test_what_waited_has_the_lag_of_its_own_write_though_others_had_the_same_change():
    bench = Bench()
    bench.send_change(999.6)
    bench.outbound.flush()
    bench.outbound.pause()
    bench.send_change(999.6)
    bench.outbound.flush()
    bench.now_s += 3.0
    bench.outbound.resume()
    assert bench.written() == ([1, 1, 2, 2], pytest.approx(0.4 + 3.4))


async def test_a_write_without_changes_or_of_what_was_held_has_no_lag():
    bench = Bench()
    bench.send(10)
    bench.send_change(0)
    bench.outbound.flush()
    assert bench.written() == ([0, 0, 0, 0], 0.0)


async def test_a_clock_behind_postgresqls_counts_as_no_lag():
    bench = Bench()
    bench.send_change(1_000.2)
    bench.outbound.flush()
    assert bench.written() == ([1, 1, 1, 1], 0.0)


async def test_the_frames_of_one_tick_are_one_write():
    bench = Bench()
    for size in (3, 200, 5):
        bench.send(size)
    assert bench.transport.writes == []
    await asyncio.sleep(0)
    assert bench.transport.writes == [frame(3) + frame(200) + frame(5)]
    bench.send(4)
    await asyncio.sleep(0)
    assert len(bench.transport.writes) == 2
    assert (bench.traffic.frames_sent, bench.traffic.writes, bench.traffic.bytes_sent) == (
        4,
        2,
        212,
    )
    bench.outbound.end()


async def test_room_ends_at_the_high_mark_and_comes_back_at_the_low_one():
    bench = Bench()
    bench.send(97)
    assert bench.outbound.has_room()
    bench.send(3)
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
    assert bench.transport.writes == [frame(10)]
    bench.outbound.end()


async def test_too_much_waiting_is_a_slow_consumer_at_once():
    bench = Bench()
    for _ in range(31):
        bench.send(10)
    assert bench.slow == ["more than 300 bytes wait to be read"]
    await asyncio.sleep(0)
    assert bench.transport.writes == []
    bench.outbound.end()


async def test_one_frame_beyond_the_maximum_is_found_when_it_is_flushed():
    bench = Bench()
    bench.outbound.pause()
    bench.send(301)
    await asyncio.sleep(0)
    assert len(bench.slow) == 1
    bench.outbound.end()


async def test_no_progress_for_the_deadline_is_a_slow_consumer(monkeypatch):
    time = VirtualTime(monkeypatch)
    bench = Bench(OutboundLimits(write_deadline_s=4.0))
    bench.send(10)
    await time.passes(0)
    for _ in range(4):
        assert bench.slow == []
        await time.passes(1.0)
    assert bench.slow == ["nothing was read in time"]
    bench.outbound.end()


async def test_any_progress_starts_the_deadline_anew(monkeypatch):
    time = VirtualTime(monkeypatch)
    bench = Bench(OutboundLimits(write_deadline_s=4.0))
    bench.send(1000)
    await time.passes(0)
    for _ in range(10):
        bench.transport.taken += 1
        await time.passes(1.0)
    for _ in range(4):
        assert bench.slow == []
        await time.passes(1.0)
    assert bench.slow == ["nothing was read in time"]
    bench.outbound.end()


@pytest.mark.security
async def test_where_too_much_waits_for_all_the_slowest_are_closed_first(monkeypatch):
    time = VirtualTime(monkeypatch)
    limits = OutboundLimits(write_deadline_s=8.0, bytes_total_max=1000)
    first = Bench(limits)
    stalled, smaller, reading, new = benches = [
        first,
        *(Bench(limits, watch=first.watch) for _ in range(3)),
    ]
    for bench, size in ((stalled, 300), (smaller, 200), (reading, 500)):
        bench.send(size)
    await time.passes(0)
    await time.passes(1.0)
    reading.transport.taken += 50
    await time.passes(1.0)
    assert not any(bench.slow for bench in benches)
    new.send(300)
    await time.passes(0)
    reading.transport.taken += 1
    await time.passes(1.0)
    assert stalled.slow == ["more waits for all clients together than may"]
    assert not any(bench.slow for bench in (smaller, reading, new))
    for bench in benches:
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
    assert bench.transport.writes == [frame(5)]
    assert bench.transport.closed == (1012, "why")
    bench.send(5)
    bench.outbound.close(1000, "again")
    bench.outbound.give_up("again")
    bench.outbound.resume()
    await asyncio.sleep(0)
    assert bench.transport.writes == [frame(5)]
    assert bench.transport.closed == (1012, "why")
    assert bench.slow == []


@pytest.mark.parametrize("how", ["send_change", "offer_change"])
async def test_a_change_is_queued_like_any_frame(how):
    bench = Bench()
    queue = getattr(bench.outbound, how)
    frames = SharedChangeFrames().get("realtime:a", SerializerVersion.V2, is_legacy=False)
    bench.send(3)
    queue(frames, [1], b"{}")
    _, pieces = frames.framed([1], b"{}")
    waiting = 3 + len(b"".join(pieces))
    assert bench.outbound.waiting_bytes() == waiting
    await asyncio.sleep(0)
    assert bench.transport.writes == [frame(3) + b"".join(pieces)]
    assert (bench.traffic.frames_sent, bench.traffic.bytes_sent) == (2, waiting)
    bench.outbound.end()
    queue(frames, [1], b"{}")
    await asyncio.sleep(0)
    assert len(bench.transport.writes) == 1


async def test_an_offer_is_refused_where_there_is_no_room():
    bench = Bench()
    frames = SharedChangeFrames().get("realtime:a", SerializerVersion.V2, is_legacy=False)
    bench.lags.current_us = int(999.6 * 1e6)
    bench.send(40)
    assert bench.outbound.offer_change(frames, [1], b"1" * 10)
    assert not bench.outbound.has_room()
    assert not bench.outbound.offer_change(frames, [1], b"{}")
    assert bench.traffic.frames_sent == 2
    await asyncio.sleep(0)
    assert bench.written() == ([1, 1, 1, 1], pytest.approx(0.4))
    assert not bench.outbound.offer_change(frames, [1], b"{}")
    bench.transport.taken = bench.transport.buffered_bytes()
    assert bench.outbound.offer_change(frames, [1], b"{}")
    bench.outbound.end()


async def test_who_is_offered_more_than_may_wait_is_slow():
    bench = Bench()
    frames = SharedChangeFrames().get("realtime:a", SerializerVersion.V2, is_legacy=False)
    bench.send(3)
    assert bench.outbound.offer_change(frames, [1], b"1" * 400)
    assert bench.slow == ["more than 300 bytes wait to be read"]
    bench.outbound.end()


async def test_room_is_found_again_when_the_transport_drained_without_a_word():
    bench = Bench()
    bench.send(100)
    await asyncio.sleep(0)
    assert not bench.outbound.has_room()
    bench.transport.taken = 3
    assert bench.outbound.has_room()
    bench.send(3)
    assert not bench.outbound.has_room()
    bench.outbound.end()


async def test_a_client_that_took_everything_is_watched_anew_the_next_time():
    bench = Bench()
    for taken in (10, 20):
        bench.send(10)
        await asyncio.sleep(0)
        assert bench.outbound.is_watched
        bench.transport.taken = taken
        await bench.wait(lambda: not bench.outbound.is_watched)
    bench.send(10)
    await bench.wait(lambda: bench.slow)
    assert bench.slow == ["nothing was read in time"]
    bench.outbound.end()


async def test_all_connections_of_a_tick_are_flushed_in_order_and_then_the_end_is_told():
    order = []
    ticks = TickFlush(lambda: order.append("end"))
    benches = [Bench(ticks=ticks) for _ in range(3)]
    for number, bench in enumerate(benches):
        bench.transport.write = lambda _frames, number=number: order.append(number) or 0
        bench.send(3)
        bench.send(3)
    await asyncio.sleep(0)
    assert order == [0, 1, 2, "end"]
    for bench in benches:
        bench.outbound.end()


async def test_a_connection_whose_flush_fails_holds_up_nobody():
    failures = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: failures.append(str(context["exception"]))
    )
    ticks = TickFlush(lambda: None)
    first, failing, last = (Bench(ticks=ticks) for _ in range(3))

    def fail(_frames):
        raise RuntimeError("planted")

    failing.transport.write = fail
    for bench in (first, failing, last):
        bench.send(3)
    await last.wait(lambda: last.transport.writes)
    assert first.transport.writes == last.transport.writes == [frame(3)]
    assert failures == ["planted"]
    for bench in (first, failing, last):
        bench.outbound.end()


async def test_what_is_queued_during_a_flush_goes_out_in_the_next_tick():
    ticks = TickFlush(lambda: None)
    first, second = Bench(ticks=ticks), Bench(ticks=ticks)
    first.transport.write = lambda _frames: second.send(7) or 0
    first.send(3)
    await second.wait(lambda: second.transport.writes)
    assert second.transport.writes == [frame(7)]
    first.outbound.end()
    second.outbound.end()


async def test_a_bug_in_closing_one_slow_client_does_not_end_the_watch():
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, it: failures.append(it))
    broken, bench = Bench(), Bench()
    bench.outbound = Outbound(bench.transport, parts=broken.parts, on_slow=bench.slow.append)
    broken.outbound = Outbound(broken.transport, parts=broken.parts, on_slow=[].remove)
    for each in (broken, bench):
        each.send(200)
    await bench.wait(lambda: bench.slow)
    assert len(failures) == 1
    for each in (broken, bench):
        each.outbound.end()
