"""A ``resync`` is told when a load shows what it is for, however many more come meanwhile."""

import asyncio
import itertools

import pytest

from fixtures.resuming_simulation import Clock, Continuity, Progress, Standing
from fixtures.transactions import empty_transaction
from heliograph import limits
from heliograph.core.changelog.position import Fingerprint
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel
from heliograph.server.delivery.channel_marks import ChannelMarks
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.marks import MarkParts, PositionMarks
from heliograph.server.delivery.positions import Unsettled
from heliograph.server.supervision import Supervisor

ORDERS = list(itertools.permutations(["publication_changed", "rights_changed"]))


class Ring:
    def covers(self, _commit_lsn):
        return True


class World:
    """Plays the stream, whose transactions are seen one look later than they are read."""

    def __init__(self, tasks):
        self.unsettled = Unsettled()
        self.read = 0
        self.told = []
        self.reasons = []
        self.clock = Clock()
        counters = DeliveryCounters()
        parts = MarkParts(
            ring=Ring(),
            continuity=Continuity(),
            progress=Progress,
            unsettled=self.unsettled,
            settle=lambda: None,
            places=self,
            clock=self.clock,
            counters=counters,
            supervisor=Supervisor(tasks),
        )
        self.owner = PositionMarks(parts)
        self.channel = SubscribedChannel(self, counters=counters, on_close=lambda _: None)
        self.channel.catch_up = lambda: None
        self.marks = self.channel.marks = ChannelMarks(
            self.owner, self.channel, None, subscription=Fingerprint(0), standing=Standing
        )
        self.channel.start()

    def finished_place(self, _lane):
        return Place(self.last_dispatched(), END_OF_TRANSACTION)

    def last_dispatched(self):
        return Lsn(self.read * 10)

    def change_rights(self):
        self.change("rights_changed")

    def change(self, *reasons):
        self.read += 1
        self.unsettled.add(empty_transaction(self.read * 10, xid=self.read))
        for reason in reasons:
            if reason == "rights_changed":
                self.marks.rights_changed()
            else:
                self.marks.resync(reason)

    def look(self, up_to):
        self.unsettled.settle(Snapshot(up_to + 1, up_to + 1, frozenset()))
        self.owner.settled()

    def offer_change(self, _ids, _data):
        raise AssertionError("nothing is delivered here")

    def has_room(self):
        return True

    def send_system(self, *, status, message, details=None):
        self.told.append(message)
        if message == "resync":
            self.reasons.append(details["reason"])


@pytest.mark.asyncio
async def test_rights_that_change_without_pause_are_told_all_the_same():
    async with asyncio.TaskGroup() as tasks:
        world = World(tasks)
        for number in range(1, 50):
            world.clock.now_s += 1.0
            world.change_rights()
            world.look(number - 1)
            world.owner.check()
        assert world.told.count("resync") > 10
        # What was told stood for what could be seen: no position before the last one is.
        assert "position" not in world.told
        world.clock.now_s += 1.0
        world.look(50)
        world.owner.check()
        assert world.told[-1] == "resync"
        world.clock.now_s += 10.0
        world.owner.check()
        assert world.told[-1] == "position"


@pytest.mark.asyncio
@pytest.mark.parametrize("was_told_that", [False, True])
@pytest.mark.parametrize("order", ORDERS)
async def test_of_several_reasons_that_wait_the_one_is_told_that_says_most(order, was_told_that):
    async with asyncio.TaskGroup() as tasks:
        world = World(tasks)
        world.clock.now_s += 10.0
        if was_told_that:
            world.change("publication_changed")
            world.look(1)
            assert world.reasons == ["publication_changed"]
        told = len(world.reasons)
        world.change(*order)
        assert len(world.reasons) == told
        world.clock.now_s += limits.RIGHTS_TOLD_INTERVAL_S
        world.look(world.read)
        world.owner.check()
        assert world.reasons[told:] == ["publication_changed"]


@pytest.mark.asyncio
@pytest.mark.parametrize("others", [["publication_changed"], ["publication_changed"] * 2, []])
async def test_every_other_history_is_told_as_such(others):
    """Even if one follows the other within a moment, and whatever is told besides."""
    async with asyncio.TaskGroup() as tasks:
        world = World(tasks)
        world.clock.now_s += 10.0
        for count in (1, 2, 3):
            world.clock.now_s += limits.RIGHTS_TOLD_INTERVAL_S / 10
            world.change("slot_recreated", *others)
            world.look(world.read)
            world.owner.check()
            assert world.reasons.count("slot_recreated") == count
