"""Order, overflow and lagging channels of one lane; the test plays the judge and the ring."""

import asyncio

import pytest

from fixtures.lanes import Group, Services, item, subscribed
from heliograph import limits
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place
from heliograph.server.delivery.lane_item import LaneMark
from heliograph.server.delivery.positions import StreamPosition

pytestmark = pytest.mark.asyncio


async def test_what_is_told_in_order_comes_behind_what_waits_and_before_what_comes_later():
    services, group = Services(), Group(judged=True)
    channel, outlet = subscribed(services, group)
    services.gate.clear()
    services.push(item(group, 10))
    services.push(item(group, 20))
    services.lane.tell_in_order(LaneMark(Lsn(30), lambda: channel.resync("truncated")))
    services.push(item(group, 40))
    assert services.lane.first_unfinished() == 10
    assert outlet.told == []
    services.gate.set()
    await services.settle()
    assert outlet.told == ["10", "20", "error resync: truncated", "40"]
    services.lane.tell_in_order(LaneMark(Lsn(50), lambda: channel.resync("truncated")))
    assert outlet.told[-1] == "error resync: truncated"


async def test_what_is_skipped_is_told_behind_what_is_older():
    services, group, changed = Services(), Group(judged=True), Group(judged=True)
    channel, outlet = subscribed(services, group)
    changed.channels[channel] = (2,)
    services.gate.clear()
    for commit_lsn, each in ((10, group), (20, changed), (30, group)):
        services.push(item(each, commit_lsn))
    await asyncio.sleep(0)
    changed.version += 1
    services.gate.set()
    await services.settle()
    # A client that loads when it is told must not be led back by what is older.
    assert outlet.told == ["10", "error resync: table_changed", "30"]


async def test_what_is_being_judged_when_another_history_begins_is_not_delivered():
    services, group = Services(), Group(judged=True)
    _, outlet = subscribed(services, group)
    services.gate.clear()
    services.push(item(group, 10))
    await asyncio.sleep(0)
    services.push(item(group, 20))
    services.lane.restart()
    services.push(item(group, 5))
    services.gate.set()
    await services.settle()
    assert outlet.told == ["5"]


async def test_a_lane_holds_no_more_bytes_than_its_bound_and_then_falls_behind():
    services, group = Services(), Group(judged=True)
    subscribed(services, group)
    services.gate.clear()
    half = limits.LANE_PENDING_BYTES_MAX // 2 + 1
    for commit_lsn in (10, 20, 30, 40):
        services.push(item(group, commit_lsn, size_bytes=half))
    assert services.lane.behind == 29
    services.gate.set()
    await services.settle()


async def test_a_large_transaction_is_judged_in_pieces():
    services, group = Services(), Group(judged=True)
    _, outlet = subscribed(services, group)
    size = limits.LANE_ITEM_CHANGES_MAX
    services.push(item(group, 10, changes=size * 2 + 1))
    await services.settle()
    assert services.judged_at_once == [size, size, 1]
    assert len(outlet.told) == size * 2 + 1


@pytest.mark.parametrize("is_busy", [False, True])
async def test_what_is_older_than_the_rights_known_is_not_shown_although_nobody_is_asked(is_busy):
    services, group, busy = Services(), Group(judged=False), Group(judged=True)
    _, outlet = subscribed(services, group)
    services.gate.clear()
    if is_busy:
        services.push(item(busy, 10))
        await asyncio.sleep(0)
    group.entry.valid_since = Lsn(30)
    services.push(item(group, 20))
    services.push(item(group, 30))
    services.gate.set()
    await services.settle()
    assert outlet.told == ["error resync: rights_changed", "30"]


async def test_more_than_can_be_held_before_the_start_is_read_from_the_ring_after_it():
    services, group = Services(), Group(judged=False)
    channel, outlet = subscribed(services, group, started=False)
    for commit_lsn in range(1, 1_201):
        services.push(item(group, commit_lsn))
    assert channel.lag is not None
    assert services.tasks == []
    channel.start()
    await services.settle()
    assert outlet.told == [str(number) for number in range(1, 1_201)]
    assert channel.lag is None


async def test_a_lagging_channel_that_is_told_resync_is_live_and_gets_nothing_older():
    services, group = Services(), Group(judged=True)
    channel, outlet = subscribed(services, group)
    outlet.is_full = True
    for commit_lsn in (10, 20):
        services.push(item(group, commit_lsn))
    await services.tasks[0]
    assert channel.lag == Place(Lsn(10), -1)
    services.gate.clear()
    outlet.drain()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # Now its catching up waits for a judgement.
    channel.resync("truncated")
    services.gate.set()
    await services.settle()
    services.push(item(group, 30))
    await services.settle()
    assert outlet.told == ["error resync: truncated", "30"]


async def test_one_task_at_a_time_catches_up_for_a_channel():
    services, group = Services(), Group(judged=False)
    channel, outlet = subscribed(services, group)
    outlet.is_full = True
    services.push(item(group, 10))
    await asyncio.sleep(0)
    channel.resync("truncated")
    services.push(item(group, 20))
    assert len(services.tasks) == 1
    outlet.drain()
    await services.settle()
    assert outlet.told == ["error resync: truncated", "20"]
    assert channel.lag is None
    assert Place(Lsn(20), 0) < Place(Lsn(20), END_OF_TRANSACTION)


def swapped(item_):
    """Give the last two changes of an item one sequence, as rows that swap their keys have."""
    item_.matches[-1].change.sequence = item_.matches[-2].change.sequence
    return item_


async def test_two_changes_of_one_sequence_are_both_told_and_never_apart():
    services, group = Services(), Group(judged=False)
    channel, outlet = subscribed(services, group)

    def fill_up(_ids, data):
        outlet.told.append(data)
        outlet.is_full = len(outlet.told) == 2

    outlet.send_change = fill_up
    services.push(swapped(item(group, 10, changes=3)))
    assert outlet.told == ["10"] * 3
    assert channel.lag is None
    services.push(swapped(item(group, 20, changes=3)))
    await services.settle()
    assert outlet.told == ["10"] * 3 + ["20"] * 3


async def test_changes_of_one_sequence_that_are_read_from_the_ring_are_both_told():
    services, group = Services(), Group(judged=True)
    _, outlet = subscribed(services, group)
    outlet.is_full = True
    services.push(swapped(item(group, 10, changes=limits.LANE_ITEM_CHANGES_MAX + 1)))
    await services.tasks[0]
    outlet.drain()
    await services.settle()
    assert len(outlet.told) == limits.LANE_ITEM_CHANGES_MAX + 1
    assert services.judged_at_once[-1] == limits.LANE_ITEM_CHANGES_MAX + 1


async def test_what_waits_in_the_lane_of_a_new_channel_is_not_told_to_it_twice():
    services, group = Services(), Group(judged=True)
    _, outlet = subscribed(services, group)
    services.gate.clear()
    services.push(item(group, 10))
    services.push(item(group, 20))
    new, new_outlet = subscribed(services, group, started=False)
    # It does not see the transaction 20, which is dispatched and waits to be judged.
    new.owed = StreamPosition(Snapshot(15, 15, frozenset()), Lsn(15))
    new.lag = Place(Lsn(19), END_OF_TRANSACTION)
    new.start()
    services.push(item(group, 30))
    services.gate.set()
    await services.settle()
    assert outlet.told == ["10", "20", "30"]
    services.push(item(group, 40))
    await services.settle()
    assert new_outlet.told == ["20", "30", "40"]
    assert new.owed is None


async def test_who_lags_within_a_transaction_is_not_live_before_the_others_have_all_of_it():
    services, group = Services(), Group(judged=True)
    channel, outlet = subscribed(services, group)
    _, quick = subscribed(services, group)
    size = limits.LANE_ITEM_CHANGES_MAX
    send = outlet.send_change

    def send_and_fill(ids, data):
        send(ids, data)
        outlet.is_full = len(outlet.told) == 10

    outlet.send_change = send_and_fill
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def judge(_lane, _question, items):
        if items[0].matches[0].change.sequence == size and items[0].from_ring is None:
            waiting.set()
            await go_on.wait()
        return object()

    services.judge = judge
    services.push(item(group, 110, changes=2 * size))
    await waiting.wait()
    assert channel.lag == Place(Lsn(110), 9)
    # It has room again while the second half is judged: nothing of the first half may be lost.
    outlet.drain()
    for _ in range(20):
        await asyncio.sleep(0)
    assert channel.lag == Place(Lsn(110), 9)
    go_on.set()
    await services.settle()
    assert len(quick.told) == len(outlet.told) == 2 * size
    assert channel.lag is None


async def test_who_comes_from_a_lane_that_was_further_waits_for_the_new_one():
    services, group = Services(), Group(judged=True)
    subscribed(services, group)
    services.gate.clear()
    services.push(item(group, 10))
    services.push(item(group, 20))
    successor, outlet = subscribed(services, group, started=False)
    successor.lag = Place(Lsn(20), END_OF_TRANSACTION)
    successor.start()
    for _ in range(20):
        await asyncio.sleep(0)
    assert successor.lag is not None
    services.gate.set()
    await services.settle()
    services.push(item(group, 30))
    await services.settle()
    assert outlet.told == ["30"]


async def test_nothing_is_judged_for_whom_nothing_is_told():
    services, group = Services(), Group(judged=True)
    _, outlet = subscribed(services, group)
    outlet.is_full = True
    services.push(item(group, 10))
    await services.tasks[0]
    services.push(item(group, 20))
    await services.tasks[-1]
    assert services.judged_at_once == [1]
    outlet.drain()
    await services.settle()
    assert outlet.told == ["10", "20"]


async def test_a_channel_takes_all_frames_of_a_change_or_none():
    services, first, second = Services(), Group(judged=False), Group(judged=False)
    second.shown = ("id", "more")
    second.entry.encode = lambda *_: "more"
    channel, outlet = subscribed(services, first)
    second.channels[channel] = (2,)
    send = outlet.send_change

    def send_and_fill(ids, data):
        send(ids, data)
        outlet.is_full = True

    outlet.send_change = send_and_fill
    both = item(first, 110)
    both.matches.append(both.matches[0]._replace(group=second))
    services.push(both)
    outlet.drain()
    await services.settle()
    assert outlet.told == ["110", "more"]
    assert channel.lag is None


async def test_a_lane_that_looks_for_its_changes_in_the_ring_lets_others_run():
    services = Services()
    turns = []

    async def refill(lane):
        turns.append("lane")
        lane.behind = Lsn(lane.behind + 1) if lane.behind < 5 else None

    async def other():
        for _ in range(3):
            turns.append("other")
            await asyncio.sleep(0)

    services.refill = refill
    services.lane.leave_to_ring(Lsn(3))
    await other()
    await services.settle()
    assert turns[:4] == ["other", "lane", "other", "lane"]


async def test_what_the_first_change_of_a_new_channel_is_told_counts_as_delivered():
    services, group = Services(), Group(judged=False)
    channel, outlet = subscribed(services, group)
    subscribed(services, group)
    channel.owed = StreamPosition(Snapshot(5, 5, frozenset()), Lsn(5))
    services.push(item(group, 10))
    assert outlet.told == ["10"]
    assert services.counters.delivered == 2
