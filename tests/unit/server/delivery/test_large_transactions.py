"""One transaction in segments: who waits for whom, and what ends it."""

import asyncio

import pytest

from heliograph.core.replication.lsn import Lsn
from heliograph.errors import LimitExceededError, StorageError
from heliograph.server.delivery.channel import Place
from heliograph.server.delivery.large_transactions import LargeTransactions

pytestmark = pytest.mark.asyncio


class Clock:
    def monotonic_s(self):
        return 1.0


class Change:
    def __init__(self, sequence):
        self.sequence = sequence


class Mark:
    commit_lsn = Lsn(100)
    is_too_large = True

    class Table:
        oid = 7

    relations = (Table,)


class Oversize:
    def __init__(self, *, raises=None):
        self.mark = Mark()
        self.raises = raises
        self.is_closed = False

    def segments(self, _wanted, *, after_sequence=-1):
        for number in range(after_sequence + 1, 3):
            yield (Change(number),)
        if self.raises is not None:
            raise self.raises

    def close(self):
        self.is_closed = True


class Lagging:
    lag = Place(Lsn(100), 0)


class Receiver:
    """Plays delivery; `on_idle` is called whenever the lanes are waited for."""

    def __init__(self):
        self.told = []
        self.lagging = []
        self.left_behind = 0
        self.on_idle = lambda: None

    def key_places(self, _mark):
        return {}

    def dispatch_segment(self, _mark, segment):
        self.told.append(segment[0].sequence)

    def resync_table(self, table_oid, reason, _mark):
        self.told.append(f"{table_oid} {reason}")

    def channels(self):
        return self.lagging

    def concerned_channels(self, _mark):
        return []

    async def wait_idle(self, _timeout_s):
        self.on_idle()

    def leave_behind(self, _mark):
        self.left_behind += 1


async def test_all_segments_are_dispatched_and_the_rows_given_back():
    receiver, oversize = Receiver(), Oversize()
    large = LargeTransactions(receiver, Clock())
    waiting = asyncio.create_task(large.dispatch(oversize))
    await waiting
    assert large.place == Place(Lsn(100), 2)
    finished = asyncio.create_task(large.wait_finished())
    await asyncio.sleep(0)
    assert not finished.done()
    large.finish()
    await finished
    assert receiver.told == [0, 1, 2]
    assert oversize.is_closed


async def test_the_rows_are_kept_for_a_channel_that_lags_within_them():
    receiver, oversize = Receiver(), Oversize()
    receiver.lagging = [Lagging()]
    large = LargeTransactions(receiver, Clock())
    await large.dispatch(oversize)
    large.finish()
    assert not oversize.is_closed
    (segments) = large.segments(oversize.mark, {}, after_sequence=0)
    assert [segment[0].sequence for segment in segments] == [1, 2]
    receiver.lagging = []
    large.release()
    assert oversize.is_closed
    with pytest.raises(LimitExceededError):
        large.segments(oversize.mark, {}, after_sequence=0)


async def test_segments_of_a_history_that_ended_are_not_dispatched():
    receiver, oversize = Receiver(), Oversize()
    large = LargeTransactions(receiver, Clock())

    def end_history():
        if receiver.told == [0]:
            large.restart()

    receiver.on_idle = end_history
    await large.dispatch(oversize)
    assert receiver.told == [0]
    assert large.place is None
    assert oversize.is_closed


async def test_rows_that_can_not_be_read_are_told_as_resync():
    receiver = Receiver()
    oversize = Oversize(raises=StorageError("the disk is gone"))
    await LargeTransactions(receiver, Clock()).dispatch(oversize)
    assert receiver.told == [0, 1, 2, "7 transaction_too_large"]
