"""Many channels of one lane that catch up at once; the test plays the judge and the ring."""

import asyncio

import pytest

from fixtures.lanes import Group, Services, item, subscribed
from heliograph import limits
from heliograph.core.replication.lsn import ZERO_LSN
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place
from heliograph.server.delivery.lane import Lane

pytestmark = pytest.mark.asyncio


def lagging(services, group, count):
    """Return so many channels that were cut off before everything, and have them catch up."""
    channels = [subscribed(services, group)[0] for _ in range(count)]
    for channel in channels:
        channel.lag = Place(ZERO_LSN, END_OF_TRANSACTION)
        services.start_catch_up(services.lane, channel)
    return channels


async def turns_of_others(services, group, count):
    """Return how many turns of the loop pass until so many have caught up."""
    services.push(item(group, 10))
    lagging(services, group, count)
    turns = 0
    while any(not task.done() for task in services.tasks):
        await asyncio.sleep(0)
        turns += 1
    return turns


async def test_few_are_judged_at_once_of_those_who_come_back_together_and_none_is_lost():
    services, group = Services(), Group(judged=True)
    services.push(item(group, 10))
    services.gate.clear()
    channels = lagging(services, group, 40)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(services.judged_at_once) == limits.CATCH_UPS_AT_ONCE_MAX
    services.gate.set()
    await services.settle()
    assert [channel.outlet.told for channel in channels] == [["10"]] * 40
    assert all(channel.lag is None for channel in channels)


async def test_those_who_come_back_together_leave_others_their_turns():
    services, group = Services(), Group(judged=False)
    assert await turns_of_others(services, group, 40) >= 40 // limits.CATCH_UPS_AT_ONCE_MAX


async def test_who_is_judged_slowly_does_not_take_the_places_of_others():
    services, group = Services(), Group(judged=True)
    slow, quick = services.lane, Lane("authenticated", "{quick}", services)
    slow.judged_s = 2 * limits.JUDGEMENT_SLOW_S
    services.push(item(group, 10))
    services.gate.clear()
    lagging(services, group, 40)
    for _ in range(100):
        await asyncio.sleep(0)
    services.lane = quick
    services.judged_at_once.clear()
    (channel,) = lagging(services, group, 1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(services.judged_at_once) == 1
    services.gate.set()
    await services.settle()
    assert channel.outlet.told == ["10"]


async def test_who_waits_for_his_client_holds_no_place():
    services, group = Services(), Group(judged=True)
    services.push(item(group, 10, changes=2))
    stalled = lagging(services, group, 2 * limits.CATCH_UPS_AT_ONCE_MAX)
    for channel in stalled:
        take = channel.outlet.send_change

        def take_and_fill(ids, data, outlet=channel.outlet, take=take):
            take(ids, data)
            outlet.is_full = True

        channel.outlet.send_change = take_and_fill
    for _ in range(200):
        await asyncio.sleep(0)
    (other,) = lagging(services, group, 1)
    for _ in range(200):
        await asyncio.sleep(0)
    assert other.outlet.told == ["10", "10"]
    assert [channel.outlet.told for channel in stalled] == [["10"]] * len(stalled)
    for channel in stalled:
        channel.outlet.drain()
    for _ in range(200):
        await asyncio.sleep(0)
    assert [channel.outlet.told for channel in stalled] == [["10", "10"]] * len(stalled)
    for channel in stalled:
        channel.outlet.drain()
    await services.settle()
