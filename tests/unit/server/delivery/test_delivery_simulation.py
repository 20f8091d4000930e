"""Lanes, the ring and channels that lag, join, are replaced and fall behind: simulated with seeds.

The real dispatcher, lanes, ring reading and catching up; the test plays PostgreSQL's answers, the
connections and the ring. Law: what a channel was told is everything that it is owed, each change
once and in commit order, but for gaps of which it was told ``resync`` first.
"""

import asyncio
import os
import random
from dataclasses import dataclass

import pytest

from heliograph import limits
from heliograph.core.matching.visibility import OldShown, Told, Verdict
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.relation import Relation, ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind
from heliograph.core.replication.snapshot import Snapshot
from heliograph.errors import LocalProtocolError, UnavailableError
from heliograph.server.delivery import catch_up, large_transactions
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.dispatcher import Dispatcher, DispatcherParts
from heliograph.server.delivery.groups import Match
from heliograph.server.delivery.judging import VisibilityRules
from heliograph.server.delivery.lane import Lane
from heliograph.server.delivery.positions import StreamPosition
from heliograph.server.metrics import Metrics
from heliograph.server.supervision import Supervisor

pytestmark = pytest.mark.asyncio

TABLES = [Relation(oid, "public", f"t{oid}", ReplicaIdentity.FULL, ()) for oid in (1, 2)]
STEPS = 150
CLIENTS = 8
AUDIENCES = ("judged 1", "judged 2", "open 1")
SEEDS = int(os.environ.get("DELIVERY_SIMULATION_SEEDS", "15"))


class Change:
    kind = ChangeKind.INSERT
    new, old = ("x",), None

    def __init__(self, transaction, sequence, relation):
        self.at = (int(transaction.commit_lsn), sequence)
        self.sequence = sequence
        self.relation = relation


class Transaction:
    """Some rows of some tables, in an order that the seed has drawn."""

    messages = truncated = changed_relations = ()
    is_too_large = False
    commit_time_us = 0

    def __init__(self, commit_lsn, rows):
        self.commit_lsn = self.end_lsn = Lsn(commit_lsn)
        self.xid = commit_lsn
        self.row_count = len(rows)
        self.size_bytes = 10 * len(rows)
        self.relations = tuple(dict.fromkeys(rows))
        self.changes = [Change(self, number, table) for number, table in enumerate(rows)]

    def decode(self, wanted):
        return [change for change in self.changes if change.relation.oid in wanted]


class Rows:
    """`OversizeTransaction` of a transaction in memory."""

    def __init__(self, transaction):
        self.mark = transaction

    @classmethod
    def in_memory(cls, transaction):
        return cls(transaction)

    def fold(self, _wanted):
        yield

    def segments(self, wanted, *, after_sequence):
        changes = self.mark.decode(wanted)
        for start in range(0, len(changes), 4):
            yield [
                change for change in changes[start : start + 4] if change.sequence > after_sequence
            ]

    def close(self):
        pass


class Ring:
    def __init__(self):
        self.kept = []
        self.evicted = ZERO_LSN

    def covers(self, commit_lsn):
        return commit_lsn >= self.evicted

    def after(self, commit_lsn, oids, limit):
        if not self.covers(commit_lsn):
            raise LocalProtocolError("not covered")
        found = [
            kept
            for kept in self.kept
            if kept.commit_lsn > commit_lsn and any(table.oid in oids for table in kept.relations)
        ]
        return found[:limit], None

    def evict(self, count):
        for kept in self.kept[:count]:
            self.evicted = kept.commit_lsn
        del self.kept[:count]


class Entry:
    valid_since = ZERO_LSN
    primary_key = ("id",)
    key_places = (0,)

    def __init__(self, relation):
        self.description = self.layout = self
        self.oid = relation.oid

    def adopt(self, _relation):
        return True

    def encoder(self, _shown):
        return self

    def encode(self, _kind, _new, _old, _time_us, _key):
        raise AssertionError("the group renders its changes itself")


class Registry:
    def __init__(self):
        self.entries = {relation.oid: Entry(relation) for relation in TABLES}

    def entry(self, oid):
        return self.entries[oid]


class Group:
    version = 1
    shown = ("id",)

    def __init__(self, audience, entry, *, judged):
        self.audience = audience
        self.entry = entry
        self.judged = judged
        self.channels = {}

    def needs_judge(self):
        return self.judged

    def match(self, change, *, leave_events):
        return Match(change, self, Verdict.YES, Verdict.NO, self.version)


class Judging:
    def ask(self, matches, question):
        question.row_count += sum(match.group.judged for match in matches)

    def is_undecidable(self, _match):
        return False

    def told(self, match, _question, _judgement):
        return Told(ChangeKind.INSERT, OldShown.NOTHING)


class Judge:
    """Takes its time, and fails now and then."""

    must_look = False

    def __init__(self, chance):
        self.chance = chance
        self.fails = 0.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def judge(self, _lane, _question, _items):
        await self.gate.wait()
        for _ in range(self.chance.randrange(12)):
            await asyncio.sleep(0)
        if self.chance.random() < self.fails:
            message = "no answer"
            raise UnavailableError(message)
        return object()

    def rights_changed_by(self, _transaction, _judgement):
        return False

    def rights_changed(self, _judgement, _transaction, _tables, _proven):
        return False


class Clock:
    def monotonic_s(self):
        return 1.0

    def unix_s(self):
        return 1.0


@dataclass(frozen=True)
class Resync:
    """What was committed when it was told."""

    commit_lsn: int


class Outlet:
    """A connection that takes some frames, and more when it drains."""

    def __init__(self, written):
        self.told = []
        self.written = written
        self.room = 1_000_000
        self.drained = asyncio.Event()

    def send_change(self, _ids, data):
        self.room -= 1
        self.told.append(data)

    def offer_change(self, ids, data):
        if self.has_room():
            self.send_change(ids, data)
            return True
        return False

    def send_system(self, *, status, message, details=None):
        assert message.startswith("resync: ")
        self.told.append(Resync(self.written[-1].commit_lsn if self.written else 0))

    def close_failed(self, message):
        raise AssertionError(message)

    def has_room(self):
        return self.room > 0

    async def wait_room(self):
        while self.room <= 0:
            self.drained.clear()
            await self.drained.wait()

    def drain(self, room):
        self.room = room
        self.drained.set()


@dataclass(eq=False)
class Client:
    """One channel, what it must be told, and its connection."""

    channel: SubscribedChannel
    outlet: Outlet
    owed: StreamPosition
    lane: Lane
    oids: set[int]


class Simulation:
    def __init__(self, seed, tasks):
        self.chance = random.Random(seed)
        self.ring = Ring()
        self.registry = Registry()
        self.judge = Judge(self.chance)
        self.dispatcher = Dispatcher(
            DispatcherParts(
                ring=self.ring,
                judge=self.judge,
                registry=self.registry,
                progress=None,
                supervisor=Supervisor(tasks),
                clock=Clock(),
                rules=VisibilityRules(),
                metrics=Metrics(),
                counters=DeliveryCounters(),
            )
        )
        self.dispatcher.judging = Judging()
        self.written = []
        self.forgotten = 0
        self.clients = []

    def commit(self, most_rows):
        rows = self.chance.choices(TABLES, k=self.chance.randint(1, most_rows))
        transaction = Transaction((len(self.written) + 1) * 10, rows)
        self.written.append(transaction)
        self.ring.kept.append(transaction)
        self.dispatcher.dispatch(transaction)

    def file(self, channel, audience_name, tables):
        """Put a channel under its groups; return its lane."""
        judged = audience_name.startswith("judged")
        lane = self.dispatcher.lane("authenticated", audience_name, frozenset())
        for table in tables:
            key = (table.oid,)
            if key not in lane.groups:
                entry = self.registry.entries[table.oid]
                group = lane.groups[key] = Group(lane.audience, entry, judged=judged)
                self.dispatcher.index.add(table.oid, group, None)
            lane.groups[key].channels[channel] = (1,)
        return lane

    async def join(self, name=None):
        if len(self.clients) == CLIENTS:
            return
        outlet = Outlet(self.written)
        channel = SubscribedChannel(outlet, counters=self.dispatcher.counters, on_close=self.unfile)
        tables = self.chance.sample(TABLES, self.chance.randint(1, 2)) if name is None else TABLES
        lane = self.file(channel, name or self.chance.choice(AUDIENCES), tables)
        # The last few are dispatched and not visible to the snapshot yet.
        unseen = self.chance.choice([0, 0, 1, 3]) if name is None else 0
        seen = max(self.forgotten, len(self.written) - unseen)
        xmax = seen * 10 + 5
        insert_lsn = Lsn(len(self.written) * 10 + 5)
        position = StreamPosition(Snapshot(xmax, xmax, frozenset()), insert_lsn)
        oids = {table.oid for table in tables}
        owed = [t for t in self.written[seen:] if any(r.oid in oids for r in t.relations)]
        self.dispatcher.begin(lane, channel, position, owed)
        client = Client(channel, outlet, position, lane, oids)
        self.clients.append(client)
        await self.pause()
        channel.start()

    async def replace(self):
        """Give some client's channel another audience."""
        started = [client for client in self.clients if not client.channel.is_held]
        if started:
            self.replace_at(self.chance.choice(started), self.chance.choice(AUDIENCES))

    def replace_at(self, client, name):
        """Give a client's channel another audience, as a refreshed token does."""
        before = client.channel
        channel = SubscribedChannel(
            client.outlet, counters=self.dispatcher.counters, on_close=self.unfile
        )
        tables = [table for table in TABLES if table.oid in client.oids]
        lane = self.file(channel, name, tables)
        self.dispatcher.succeed(lane, channel, client.lane, before)
        channel.start()
        before.close()
        client.channel, client.lane = channel, lane

    def unfile(self, channel):
        for lane in list(self.dispatcher.lanes.values()):
            for key, group in list(lane.groups.items()):
                group.channels.pop(channel, None)
                if not group.channels:
                    self.dispatcher.index.remove(group.entry.oid, group, None)
                    del lane.groups[key]
            self.dispatcher.drop_lane(lane)

    async def run(self, *, loses):
        self.judge.fails = 0.05 if loses else 0.0
        actions = [self.commit_some] * 45 + [self.commit_many] * 8 + [self.pause] * 17
        actions += [self.join] * 7 + [self.drain] * 15 + [self.replace] * 5
        if loses:
            actions += [self.evict] * 3 + [self.begin_anew]
        for _ in range(STEPS):
            await self.chance.choice(actions)()
        for client in self.clients:
            client.outlet.drain(1_000_000)
        for _ in range(20_000):
            await asyncio.sleep(0)
            if self.is_at_rest():
                return
        raise AssertionError("it does not come to rest")

    async def commit_some(self):
        self.commit(most_rows=4)

    async def commit_many(self):
        self.commit(most_rows=40)

    async def drain(self):
        if self.clients:
            self.chance.choice(self.clients).outlet.drain(self.chance.choice([0, 1, 5, 20]))

    async def begin_anew(self):
        """Read from another slot: nothing that was read before joins what comes."""
        self.forgotten = len(self.written)
        self.ring.evict(len(self.ring.kept))
        self.dispatcher.restart(ZERO_LSN)
        self.dispatcher.resync_all("slot_recreated")

    async def evict(self):
        self.ring.evict(self.chance.randrange(5))

    async def pause(self):
        for _ in range(self.chance.randrange(30)):
            await asyncio.sleep(0)

    def is_at_rest(self):
        lanes = self.dispatcher.lanes.values()
        return all(lane.is_idle() and lane.behind is None for lane in lanes) and all(
            client.channel.lag is None for client in self.clients
        )

    def check(self, client):
        """Compare what a client was told with what it is owed, in all and table by table.

        After ``resync`` it loads the rows, so what was committed before may be missing, or come
        again; but of each table nothing may be missing behind what it is told then: an older
        version would stay.
        """
        expected = {
            change.at: change.relation.oid
            for transaction in self.written
            if transaction.commit_lsn >= client.owed.insert_lsn
            or not client.owed.snapshot.sees(transaction.xid)
            for change in transaction.changes
            if change.relation.oid in client.oids
        }
        last = (0, 0)
        for told in client.outlet.told:
            assert isinstance(told, Resync) or told > last, f"{told} again, or late"
            last = (0, 0) if isinstance(told, Resync) else told
        for oid in client.oids:
            of_table = [at for at, of in expected.items() if of == oid]
            told = [t for t in client.outlet.told if isinstance(t, Resync) or expected[t] == oid]
            self.check_table(of_table, told)

    @staticmethod
    def check_table(expected, told):
        next_place, loaded_up_to = 0, 0
        for at in [*told, None]:
            if isinstance(at, Resync):
                loaded_up_to = at.commit_lsn
                continue
            place = len(expected) if at is None else expected.index(at)
            silent = [
                skipped for skipped in expected[next_place:place] if skipped[0] > loaded_up_to
            ]
            assert not silent, f"nothing was said of {silent}"
            assert place >= next_place or loaded_up_to, f"{at} again, or late"
            next_place, loaded_up_to = place + 1, 0


def rendered(_dispatched, match, _told):
    return match.change.at


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch):
    for name, value in {
        "LANE_PENDING_CHANGES_MAX": 12,
        "LANE_ITEM_CHANGES_MAX": 3,
        "JUDGEMENT_BATCH_ROWS_MAX": 5,
        "REFILL_TRANSACTIONS_MAX": 3,
        "TRANSACTION_ROWS_AT_ONCE_MAX": 8,
        "HELD_CHANGES_MAX": 4,
        "OVERSIZE_WAIT_S": 0.0,
    }.items():
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr(catch_up, "_TRANSACTIONS_AT_ONCE", 4)
    monkeypatch.setattr(large_transactions, "OversizeTransaction", Rows)
    monkeypatch.setattr("heliograph.server.delivery.handing_over._rendered", rendered)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_channel_is_told_all_it_is_owed_once_and_in_order(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = Simulation(seed, tasks)
        await simulation.run(loses=False)
        for client in simulation.clients:
            assert not [told for told in client.outlet.told if isinstance(told, Resync)]
            simulation.check(client)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_what_is_lost_is_said_before_anything_later_is_told(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = Simulation(seed, tasks)
        await simulation.run(loses=True)
        for client in simulation.clients:
            simulation.check(client)


async def test_who_comes_to_a_lane_that_is_behind_and_lags_no_more_is_told_nothing_older():
    async with asyncio.TaskGroup() as tasks:
        simulation = Simulation(0, tasks)
        await simulation.join("judged 1")
        simulation.judge.gate.clear()
        simulation.commit(most_rows=1)
        await simulation.join("open 1")
        simulation.commit(most_rows=1)
        client = simulation.clients[1]
        simulation.replace_at(client, "judged 1")
        client.channel.resync("rights_changed")
        simulation.commit(most_rows=1)
        simulation.judge.gate.set()
        while not simulation.is_at_rest():
            await asyncio.sleep(0)
        assert client.outlet.told == [(20, 0), Resync(20), (30, 0)]
