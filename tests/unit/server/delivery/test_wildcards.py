"""A table that is new to the stream, and the clients that asked for whatever comes."""

import asyncio

import pytest

from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.errors import JudgementUnavailableError
from heliograph.ports.change_subscriptions import ChangeBinding
from heliograph.ports.identity import Identity
from heliograph.server.delivery import subscriptions
from heliograph.server.delivery.planned_binding import Wildcard
from heliograph.server.delivery.subscriptions import ChangeSubscriptionService, SubscriptionParts

pytestmark = pytest.mark.asyncio

TABLE = 7


class Registry:
    def entries(self):
        return {}

    """Lists the published tables when told to."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.lists = 0

    async def published_tables(self):
        self.lists += 1
        await self.gate.wait()
        return []

    def entry(self, _oid):
        return None


class Channel:
    is_closed = False


class Kit:
    """A service whose planning and filing are recorded."""

    def __init__(self):
        self.registry = Registry()
        none = dict.fromkeys(SubscriptionParts.__slots__)
        self.service = ChangeSubscriptionService(
            SubscriptionParts(**{**none, "registry": self.registry})
        )
        self.tried, self.added = [], []
        self.trial = None
        self.service._plan = self.plan
        self.service._try_out = self.try_out
        self.service._add_groups = self.add

    def subscribe(self, *events):
        channel = Channel()
        identity = Identity("authenticated", "{}", {}, None, None)
        self.service._members[channel] = {}
        self.service._wildcards[channel] = [
            Wildcard(
                ChangeBinding(number, {}),
                BindingParameters(event, "public", "*"),
                identity,
                channel,
            )
            for number, event in enumerate(events)
        ]
        return channel

    async def plan(self, binding, parameters, _identity, _published):
        return [(binding.id, parameters.event)]

    async def try_out(self, planned, _identity, *, is_join):
        assert not is_join
        self.tried.append(planned[0][1])
        if self.trial is not None:
            raise self.trial

    def add(self, channel, planned, _identity):
        self.added.append((channel, *planned))


@pytest.fixture
def kit(monkeypatch):
    monkeypatch.setattr(subscriptions, "refuse_if_gone", lambda *_: None)
    return Kit()


async def test_a_client_that_leaves_while_the_table_is_read_ends_nothing(kit):
    kit.registry.gate.clear()
    leaving, staying = kit.subscribe("*"), kit.subscribe("*")
    expanding = asyncio.create_task(kit.service.expand(TABLE))
    await asyncio.sleep(0)
    leaving.is_closed = True
    kit.service._close(leaving)
    kit.registry.gate.set()
    await expanding
    assert [channel for channel, _ in kit.added] == [staying]


async def test_every_binding_of_a_channel_gets_the_table(kit):
    channel = kit.subscribe("INSERT", "DELETE")
    await kit.service.expand(TABLE)
    assert kit.added == [(channel, (0, "INSERT")), (channel, (1, "DELETE"))]


async def test_what_equal_subscriptions_ask_is_asked_once(kit):
    for _ in range(50):
        kit.subscribe("*")
    await kit.service.expand(TABLE)
    assert (kit.registry.lists, kit.tried, len(kit.added)) == (1, ["*"], 50)


async def test_no_answer_in_time_for_one_client_does_not_hold_up_the_stream(kit):
    kit.trial = JudgementUnavailableError("too slow", timed_out=True)
    kit.subscribe("*")
    await kit.service.expand(TABLE)
    assert len(kit.added) == 1
