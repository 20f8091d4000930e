"""Progress, positions and what is not settled yet."""

import asyncio

import pytest

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import UnavailableError
from heliograph.server.delivery.positions import PositionService, StreamPosition, Unsettled
from heliograph.server.delivery.progress import StreamProgress


class Stream:
    def __init__(self):
        self.requests = 0
        self.nudges = 0
        self.on_nudge = lambda: None

    def request(self):
        self.requests += 1

    async def nudge(self):
        self.nudges += 1
        await asyncio.sleep(0)
        self.on_nudge()


class Kept:
    def __init__(self, commit_lsn, xid):
        self.commit_lsn = commit_lsn
        self.xid = xid


def kept(commit_lsn: int, xid: int) -> Transaction:
    return Kept(commit_lsn, xid)


@pytest.mark.asyncio
async def test_waiting_for_what_has_passed_asks_nobody():
    stream = Stream()
    progress = StreamProgress(request=stream.request, nudge=stream.nudge)
    progress.advance(Lsn(100))
    await progress.wait(Lsn(100), 1.0)
    assert (stream.requests, stream.nudges) == (0, 0)


@pytest.mark.asyncio
async def test_a_waiter_goes_on_as_soon_as_the_stream_passes_and_not_before():
    stream = Stream()
    progress = StreamProgress(request=stream.request, nudge=stream.nudge)
    waits = [asyncio.create_task(progress.wait(Lsn(position), 5.0)) for position in (50, 60)]
    await asyncio.sleep(0)
    progress.advance(Lsn(55))
    await waits[0]
    assert not waits[1].done()
    progress.advance(Lsn(60))
    await waits[1]
    assert stream.requests >= 2


@pytest.mark.asyncio
async def test_an_idle_stream_is_nudged_once_for_all_who_wait():
    stream = Stream()
    progress = StreamProgress(request=stream.request, nudge=stream.nudge)
    stream.on_nudge = lambda: progress.advance(Lsn(1_000))
    await asyncio.gather(*(progress.wait(Lsn(500), 5.0) for _ in range(5)))
    assert stream.nudges == 1


@pytest.mark.asyncio
async def test_a_stream_that_does_not_move_is_an_error_and_leaves_no_waiter():
    stream = Stream()
    progress = StreamProgress(request=stream.request, nudge=stream.nudge)
    with pytest.raises(UnavailableError):
        await progress.wait(Lsn(500), 0.01)
    progress.advance(Lsn(500))
    assert progress.passed == 500


def test_unsettled_keeps_what_a_snapshot_does_not_see():
    unsettled = Unsettled()
    unsettled.add(kept(100, 10))
    unsettled.add(kept(200, 11))
    unsettled.add(kept(300, 12))
    sees_10_and_12 = Snapshot(11, 13, frozenset({11}))
    assert [t.xid for t in unsettled.not_seen_by(sees_10_and_12)] == [11]
    assert unsettled.all_seen_by(sees_10_and_12, Lsn(199))
    assert not unsettled.all_seen_by(sees_10_and_12, Lsn(200))
    unsettled.settle(sees_10_and_12)
    assert len(unsettled) == 1
    unsettled.settle(Snapshot(13, 13, frozenset()))
    assert len(unsettled) == 0
    assert unsettled.all_seen_by(sees_10_and_12, Lsn(1_000))


@pytest.mark.asyncio
async def test_one_query_serves_all_who_ask_in_one_tick_and_settles_after_them():
    unsettled = Unsettled()
    unsettled.add(kept(100, 10))
    taken = []

    async def take():
        taken.append(1)
        await asyncio.sleep(0)
        return StreamPosition(Snapshot(11, 11, frozenset()), Lsn(500))

    service = PositionService(take=take, unsettled=unsettled)
    seen = []

    def register(position):
        seen.append((position.insert_lsn, len(unsettled)))

    running = asyncio.create_task(service.run(settle_interval_s=10.0))
    await asyncio.gather(*(service.fix(register) for _ in range(10)))
    running.cancel()
    assert seen == [(500, 1)] * 10
    assert len(taken) == 1
    assert len(unsettled) == 0


@pytest.mark.asyncio
async def test_a_failed_position_reaches_all_who_asked_and_the_next_one_works():
    unsettled = Unsettled()
    answers = [UnavailableError("no database"), StreamPosition(Snapshot(1, 1, frozenset()), Lsn(5))]

    async def take():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    service = PositionService(take=take, unsettled=unsettled)
    running = asyncio.create_task(service.run(settle_interval_s=10.0))
    registered = []
    with pytest.raises(UnavailableError):
        await service.fix(registered.append)
    assert registered == []
    await service.fix(registered.append)
    assert len(registered) == 1
    running.cancel()


@pytest.mark.asyncio
async def test_nobody_waits_for_a_stream_that_is_held_up_by_those_who_wait():
    stream = Stream()
    progress = StreamProgress(request=stream.request, nudge=stream.nudge)
    progress.is_held_up = lambda: True
    with pytest.raises(UnavailableError, match="held up"):
        await progress.wait(Lsn(500), 3_600)
    assert stream.nudges == 0


@pytest.mark.asyncio
async def test_a_registration_that_fails_is_its_callers_and_nobody_elses():
    async def take():
        return StreamPosition(Snapshot(1, 1, frozenset()), Lsn(1))

    positions = PositionService(take=take, unsettled=Unsettled())
    registered = []

    def fail(_position):
        raise KeyError("a role that is gone")

    serving = asyncio.create_task(positions.run(settle_interval_s=10))
    failing = asyncio.create_task(positions.fix(fail))
    await positions.fix(registered.append)
    with pytest.raises(KeyError):
        await failing
    await positions.fix(registered.append)
    assert len(registered) == 2
    serving.cancel()


@pytest.mark.asyncio
async def test_a_position_taken_in_a_history_that_ended_meanwhile_is_taken_again():
    unsettled = Unsettled()
    taken = []

    async def take():
        position = StreamPosition(Snapshot(1, 1, frozenset()), Lsn(len(taken) + 1))
        taken.append(position)
        if len(taken) == 1:
            unsettled.clear()
        return position

    positions = PositionService(take=take, unsettled=unsettled)
    registered = []
    serving = asyncio.create_task(positions.run(settle_interval_s=10))
    await positions.fix(registered.append)
    serving.cancel()
    assert registered == [taken[1]]
