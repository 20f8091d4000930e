"""A bug that one subscriber's filter, policy or row meets changes nothing for the others (P6)."""

import asyncio
from dataclasses import fields

import pytest

from heliograph.core.matching.visibility import Verdict
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.relation import Relation, ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind
from heliograph.server.delivery.channel import SubscribedChannel
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.dispatcher import Dispatcher, DispatcherParts
from heliograph.server.delivery.groups import Match
from heliograph.server.delivery.judging import VisibilityRules
from heliograph.server.supervision import Supervisor

TABLE = Relation(7, "public", "notes", ReplicaIdentity.FULL, ())


class Change:
    kind = ChangeKind.INSERT
    relation = TABLE
    new, old = ("x",), None


class Transaction:
    relations = (TABLE,)
    truncated = ()
    is_too_large = False
    row_count = 1
    commit_lsn = Lsn(10)
    xid = 1

    def __init__(self, *, is_malformed=False):
        self.is_malformed = is_malformed

    def decode(self, _places):
        if self.is_malformed:
            raise ValueError("a row that nobody foresaw")
        return [Change()]


class Registry:
    def entry(self, _oid):
        return None


class Judge:
    must_look = False


class Outlet:
    def __init__(self):
        self.told = []

    def send_system(self, *, status, message, details=None):
        self.told.append(f"{status} {message}")

    def close_failed(self, message):
        self.told.append(message.partition(":")[0])


class Group:
    entry = None

    def __init__(self, dispatcher, name, *, raises=False):
        self.audience = (name, "{}", frozenset())
        self.raises = raises
        self.outlet = Outlet()
        channel = SubscribedChannel(
            self.outlet, counters=dispatcher.counters, on_close=lambda _channel: None
        )
        self.channels = {channel: (1,)}
        self.pushed = []
        dispatcher.index.add(TABLE.oid, self, None)
        self.lane = dispatcher.lane(*self.audience)
        self.lane.groups[name] = self
        self.lane.push = self.pushed.append

    def match(self, change, *, leave_events):
        if self.raises:
            raise ValueError("a filter that nobody foresaw")
        return Match(change, self, Verdict.YES, Verdict.NO, 1)


@pytest.fixture
def dispatcher():
    return Dispatcher(
        DispatcherParts(
            ring=None,
            judge=Judge(),
            registry=Registry(),
            progress=None,
            supervisor=Supervisor(None),
            clock=None,
            rules=VisibilityRules(),
            metrics=None,
            counters=DeliveryCounters(),
        )
    )


def test_a_filter_that_raises_ends_its_own_channels_only(dispatcher):
    bad, good = Group(dispatcher, "bad", raises=True), Group(dispatcher, "good")
    dispatcher.dispatch(Transaction())
    assert bad.outlet.told == ["internal_error"]
    assert good.outlet.told == []
    assert len(good.pushed) == 1
    assert dispatcher.last_dispatched() == 10


def test_a_lane_that_raises_ends_its_own_channels_only(dispatcher):
    bad, good = Group(dispatcher, "bad"), Group(dispatcher, "good")

    def push(_item):
        raise ValueError("an encoder that met the unforeseen")

    bad.lane.push = push
    dispatcher.dispatch(Transaction())
    assert bad.outlet.told == ["internal_error"]
    assert good.outlet.told == []
    assert len(good.pushed) == 1


def test_a_transaction_that_can_not_be_decoded_is_told_as_resync(dispatcher):
    group = Group(dispatcher, "any")
    dispatcher.dispatch(Transaction(is_malformed=True))
    assert group.outlet.told == ["error resync: internal_error"]
    dispatcher.dispatch(Transaction())
    assert len(group.pushed) == 1


class Progress:
    async def wait(self, _lsn, _timeout_s):
        """The stream has come as far; what came waits to be dispatched."""


@pytest.mark.asyncio
async def test_who_waits_for_a_position_does_not_wait_into_another_history():
    parts = dict.fromkeys(each.name for each in fields(DispatcherParts))
    rules, counters = VisibilityRules(), DeliveryCounters()
    dispatcher = Dispatcher(
        DispatcherParts(**{**parts, "progress": Progress(), "rules": rules, "counters": counters})
    )
    waiting = asyncio.create_task(dispatcher.reach(Lsn(1_000)))
    await asyncio.sleep(0)
    dispatcher.pass_to(Lsn(500))
    await asyncio.sleep(0)
    assert not waiting.done()
    dispatcher.restart(Lsn(10))
    async with asyncio.timeout(5):
        await waiting
