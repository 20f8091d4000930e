"""Clients that keep positions, cut, crashed under and brought back: simulated with seeds.

The same world as of the delivery simulation, in which every channel asks for positions. Law: what
was handed on before a position is everything that the client is owed, each change once and in
commit order, but for gaps of which it was told ``resync`` first.
"""

import asyncio
import os

import pytest

from fixtures.delivery_simulation import (  # noqa: F401 - small_bounds is a fixture
    Outlet,
    Resync,
    Simulation,
    small_bounds,
)
from heliograph import limits
from heliograph.core.changelog.position import SEQUENCE_END, Epoch, PositionCodec
from heliograph.core.replication.lsn import MAX_LSN, Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel
from heliograph.server.delivery.marks import ChannelMarks, MarkParts, PositionMarks
from heliograph.server.delivery.positions import StreamPosition
from heliograph.server.supervision import Supervisor

pytestmark = pytest.mark.asyncio

SEEDS = int(os.environ.get("RESUMING_SIMULATION_SEEDS", "1000" if "CI" in os.environ else "60"))


@pytest.fixture(autouse=True)
def marks_within_transactions(monkeypatch):
    monkeypatch.setattr(limits, "POSITION_INSIDE_CHANGES", 5)


class Clock:
    now_s = 1.0

    def monotonic_s(self):
        return self.now_s


class Continuity:
    """The epoch, without a file."""

    codec = PositionCodec(b"a key of sixteen")
    epoch = Epoch(1)

    def note_received(self, received):
        pass


class Progress:
    passed = MAX_LSN


class HoldingOutlet(Outlet):
    """A connection whose client hands on what a position stands for."""

    def __init__(self, written):
        super().__init__(written)
        self.waiting = []
        self.since = None

    def send_change(self, _ids, data):
        self.room -= 1
        self.waiting.append(data)

    def send_system(self, *, status, message, details=None):
        if message == "resync":
            self.waiting.clear()
            self.told.append(Resync(self.written[-1].commit_lsn if self.written else 0))
        else:
            assert (status, message) == ("ok", "position")
            self.told += self.waiting
            self.waiting.clear()
        self.since = details["position"]


class ResumingSimulation(Simulation):
    def __init__(self, seed, tasks, *, crashes):
        self.continuity = Continuity()
        self.clock = Clock()
        super().__init__(seed, tasks)
        self.crashes = crashes
        self.away = []
        self.make_marks()

    def make_marks(self):
        self.marks = PositionMarks(
            MarkParts(
                ring=self.ring,
                continuity=self.continuity,
                progress=Progress,
                places=self.dispatcher,
                clock=self.clock,
                counters=self.dispatcher.counters,
                supervisor=Supervisor(self.tasks),
            )
        )

    def make_outlet(self):
        return HoldingOutlet(self.written)

    def file(self, channel, audience_name, tables):
        lane = super().file(channel, audience_name, tables)
        channel.marks = ChannelMarks(self.marks, channel, lane, subscription=0, rights=lambda: 0)
        return lane

    def more_actions(self):
        crashes = [self.crash] if self.crashes else []
        return [self.cut] * 6 + [self.come_back] * 8 + crashes

    def end_turn(self):
        self.clock.now_s += 0.1
        # The log goes on a little behind each commit, and the stream follows it.
        self.dispatcher.pass_to(Lsn(len(self.written) * 10 + 6))
        self.marks.flush()
        self.marks.check()

    async def cut(self):
        """Cut one client's connection: what it was not told a position for is gone."""
        started = [client for client in self.clients if not client.channel.is_held]
        if started:
            self.lose(self.chance.choice(started))

    def lose(self, client):
        client.channel.close()
        client.outlet.waiting.clear()
        client.outlet.drain(1_000_000)
        self.clients.remove(client)
        self.away.append(client)

    async def come_back(self):
        if self.away:
            self.bring_back(self.away.pop(self.chance.randrange(len(self.away))))

    def bring_back(self, client):
        """Join again with the last position, or from now where there is none or it is void."""
        channel = SubscribedChannel(
            client.outlet, counters=self.dispatcher.counters, on_close=self.unfile
        )
        tables = [table for table in self.tables() if table.oid in client.oids]
        audience = client.lane.claims_json
        client.channel, client.lane = channel, self.file(channel, audience, tables)
        self.clients.append(client)
        place = self.place_of(client.outlet.since)
        if place is not None:
            self.dispatcher.resume(client.lane, channel, place)
        else:
            end = len(self.written) * 10 + 5
            position = StreamPosition(Snapshot(end, end, frozenset()), Lsn(end))
            self.dispatcher.begin(client.lane, channel, position, [])
            channel.marks.begin_with_resync("position_expired")
        channel.start()

    def tables(self):
        return [entry.relation for entry in self.registry.entries.values()]

    def place_of(self, text):
        if text is None:
            return None
        since = self.continuity.codec.decode(text)
        is_whole = since.sequence == SEQUENCE_END
        place = Place(since.lsn, END_OF_TRANSACTION if is_whole else since.sequence)
        if since.epoch != self.continuity.epoch or not self.ring.covers(place.read_behind()):
            return None
        return place

    async def begin_anew(self):
        self.continuity.epoch = Epoch(self.continuity.epoch + 1)
        await super().begin_anew()

    async def crash(self):
        """End the process: another one fills its ring from where the slot was confirmed."""
        for client in tuple(self.clients):
            if not client.channel.is_held:
                self.lose(client)
        if self.clients:
            return  # somebody is joining; the next crash finds nobody
        confirmed = max(self.forgotten, len(self.written) - self.chance.randrange(12))
        floor = Lsn(confirmed * 10)
        self.ring.kept.clear()
        self.ring.evicted = floor
        self.dispatcher = self.make_dispatcher(self.tasks)
        self.make_marks()
        self.dispatcher.start(floor, Lsn(len(self.written) * 10 + 5))
        for transaction in self.written[confirmed:]:
            self.ring.kept.append(transaction)
            self.dispatcher.dispatch(transaction)

    async def end(self):
        assert not self.marks.parts.supervisor.failures
        while self.away:
            self.bring_back(self.away.pop())

    def check(self, client):
        """As for all clients; but behind a ``resync`` what lies before the first join may come."""
        first = next(
            (n for n, told in enumerate(client.outlet.told) if isinstance(told, Resync)), None
        )
        owed = client.owed
        before = client.outlet.told[:first]
        for commit_lsn, _ in before:
            assert commit_lsn >= owed.insert_lsn or not owed.snapshot.sees(commit_lsn)
        if first is not None:
            client.owed = StreamPosition(Snapshot(0, 0, frozenset()), Lsn(0))
            seen = max((t.commit_lsn for t in self.written if self.is_seen(owed, t)), default=0)
            client.outlet.told.insert(0, Resync(seen))
        super().check(client)

    @staticmethod
    def is_seen(owed, transaction):
        return not owed.owes(transaction.xid, transaction.commit_lsn)

    def is_at_rest(self):
        return super().is_at_rest() and not any(client.outlet.waiting for client in self.clients)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whoever_comes_back_goes_on_where_it_was(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = ResumingSimulation(seed, tasks, crashes=False)
        await simulation.run(loses=False)
        for client in simulation.clients:
            simulation.check(client)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_crashes_and_losses_are_told_before_anything_later(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = ResumingSimulation(seed, tasks, crashes=True)
        await simulation.run(loses=True)
        for client in simulation.clients:
            simulation.check(client)


async def test_a_bug_in_the_marks_of_one_channel_ends_that_channel_only():
    async with asyncio.TaskGroup() as tasks:
        simulation = ResumingSimulation(0, tasks, crashes=False)
        await simulation.join("open 1")
        await simulation.join("open 1")
        bad, good = simulation.clients
        ended = []
        bad.outlet.send_system = None
        bad.outlet.close_failed = ended.append
        simulation.commit(most_rows=1)
        simulation.end_turn()
        assert len(ended) == 1
        assert bad.channel.is_closed
        assert good.outlet.told == [(10, 0)]
        assert simulation.marks.parts.supervisor.failures == 1
