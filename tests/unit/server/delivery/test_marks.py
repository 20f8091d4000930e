"""When channels are told their positions: what waits, and for what."""

import asyncio

import pytest

from heliograph import limits
from heliograph.core.replication.lsn import Lsn
from heliograph.server.delivery.marks import MarkParts, PositionMarks
from heliograph.server.delivery.positions import Unsettled
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.supervision import Supervisor


class Clock:
    now_s = 0.0

    def monotonic_s(self):
        return self.now_s


class Marks:
    """One channel, which can be told as soon as it may."""

    told_s = 0.0

    def __init__(self, *, waits=None):
        self.waits = waits
        self.told = 0

    def tell(self):
        if self.waits is not None:
            self.waits(self)
            return False
        self.told += 1
        return True


class Stand:
    def __init__(self, tasks):
        self.looks = 0
        self.nudges = 0
        self.clock = Clock()
        self.progress = StreamProgress(request=lambda: None, nudge=self.nudge)
        parts = MarkParts(
            ring=None,
            continuity=None,
            progress=self.progress,
            unsettled=Unsettled(),
            settle=self.look,
            places=None,
            clock=self.clock,
            counters=None,
            supervisor=Supervisor(tasks),
        )
        self.marks = PositionMarks(parts)

    def look(self):
        self.looks += 1

    async def nudge(self):
        self.nudges += 1
        self.progress.advance(Lsn(1_000))


@pytest.mark.asyncio
async def test_what_stays_unseen_is_looked_at_with_each_check_and_not_in_between():
    async with asyncio.TaskGroup() as tasks:
        stand = Stand(tasks)
        marks = Marks(waits=stand.marks.await_settled)
        stand.marks.add(marks)
        stand.marks.check()
        assert stand.looks == 1
        for _ in range(10):
            stand.marks.settled()
        assert stand.looks == 1
        stand.marks.check()
        assert stand.looks == 2
        marks.waits = None
        stand.marks.settled()
        assert marks.told == 1


@pytest.mark.asyncio
async def test_a_stream_that_stands_still_is_moved_once_for_all_who_wait_for_it(monkeypatch):
    monkeypatch.setattr(limits, "NUDGE_AFTER_S", 0.0)
    async with asyncio.TaskGroup() as tasks:
        stand = Stand(tasks)
        for position in (500, 900, 700):

            def wait(_marks, to=position):
                stand.marks.await_stream(Lsn(to))

            stand.marks.add(Marks(waits=wait))
        stand.marks.check()
        for _ in range(20):
            await asyncio.sleep(0)
        assert stand.nudges == 1
        assert stand.progress.passed == 1_000


@pytest.mark.asyncio
async def test_what_is_due_is_told_by_the_next_check_at_the_latest():
    async with asyncio.TaskGroup() as tasks:
        stand = Stand(tasks)
        marks = Marks()
        stand.marks.due(marks)
        stand.marks.check()
        assert marks.told == 1
