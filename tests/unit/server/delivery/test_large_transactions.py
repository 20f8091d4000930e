"""What the readers of a transaction with many rows share, and how long it is kept."""

import asyncio

import pytest

from heliograph import limits
from heliograph.core.replication.lsn import Lsn
from heliograph.errors import LimitExceededError
from heliograph.server.delivery.large_transactions import LargeTransactions

pytestmark = pytest.mark.asyncio


class Clock:
    now_s = 1.0

    def monotonic_s(self):
        return self.now_s


class Mark:
    is_too_large = True

    def __init__(self, commit_lsn):
        self.commit_lsn = Lsn(commit_lsn)


class Rows:
    """Three segments; counts what is done for all readers."""

    def __init__(self, commit_lsn):
        self.mark = Mark(commit_lsn)
        self.folded = False
        self.foldings = 0
        self.is_closed = False
        self.decoded = []

    def fold(self, _wanted):
        if not self.folded:
            self.foldings += 1
            yield
            yield
            self.folded = True

    def segments(self, _wanted, *, after_sequence=-1):
        assert self.folded
        for number in range(after_sequence + 1, 3):
            self.decoded.append(number)
            yield (number,)

    def close(self):
        self.is_closed = True


async def read(large, rows, *, after=-1):
    segments = large.segments(rows.mark, {}, after_sequence=after)
    return [number async for (number,) in segments]


async def test_readers_share_what_became_of_repeated_keys_and_take_turns():
    large, rows = LargeTransactions(lambda: Lsn(1), Clock()), Rows(10)
    large.keep(rows)
    found = await asyncio.gather(read(large, rows), read(large, rows), read(large, rows, after=1))
    assert found == [[0, 1, 2], [0, 1, 2], [2]]
    assert rows.foldings == 1
    assert rows.decoded[:2] == [0, 0]


async def test_the_rows_are_kept_as_long_as_somebody_reads_them_and_not_for_ever():
    clock, needed = Clock(), [Lsn(9)]
    large, rows = LargeTransactions(lambda: needed[0], clock), Rows(10)
    large.keep(rows)
    large.release()
    assert not rows.is_closed
    needed[0] = Lsn(10)
    large.release()
    assert not rows.is_closed  # somebody may have been cut off within it
    clock.now_s += limits.OVERSIZE_UNREAD_S
    large.release()
    assert rows.is_closed
    with pytest.raises(LimitExceededError):
        await read(large, rows)
    old = Rows(20)
    large.keep(old)
    clock.now_s += limits.OVERSIZE_KEPT_S_MAX + 1
    large.release()
    assert old.is_closed


async def test_a_bounded_number_is_kept():
    large = LargeTransactions(lambda: Lsn(1), Clock())
    many = [Rows(10 * number) for number in range(1, limits.OVERSIZE_KEPT_MAX + 3)]
    for rows in many:
        large.keep(rows)
    assert [rows.is_closed for rows in many] == [True] * 2 + [False] * limits.OVERSIZE_KEPT_MAX
    large.restart()
    assert all(rows.is_closed for rows in many)
