"""The official Python client, unmodified, against the server (serializer 1.0.0)."""

import pytest
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from fixtures.realtime_server import ADAPTERS
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.asyncio, pytest.mark.interop]


@pytest.fixture(params=sorted(ADAPTERS))
def run_server(request):
    return ADAPTERS[request.param]


class Watcher:
    """A client with one channel, and what it was told."""

    def __init__(self, server, token="anon"):
        self.client = AsyncRealtimeClient(
            server.address.url + "/realtime/v1", token, auto_reconnect=False
        )
        self.states, self.changes, self.systems = [], [], []

    async def subscribe(self, table="orders", **binding):
        channel = self.client.channel("room")
        channel.on_postgres_changes(
            "*", schema="public", table=table, callback=self.changes.append, **binding
        )
        channel.on_system(self.systems.append)
        await channel.subscribe(lambda state, error: self.states.append((state, error)))
        return channel

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exception):
        await self.client.close()


async def test_it_is_subscribed_and_gets_changes(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        await watcher.subscribe(filter="id=eq.7")
        assert watcher.states == [(RealtimeSubscribeStates.SUBSCRIBED, None)]
        await wait_until(lambda: watcher.systems)
        assert watcher.systems[0].message == "Subscribed to PostgreSQL"
        (subscription,) = server.subscriptions.made
        assert dict(subscription.bindings[0].parameters) == {
            "event": "*",
            "schema": "public",
            "table": "orders",
            "filter": "id=eq.7",
        }
        subscription.send({"id": 7})
        await wait_until(lambda: watcher.changes)
        assert watcher.changes[0]["data"]["record"] == {"id": 7}


async def test_it_is_told_why_a_join_failed(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        watcher.client.access_token = "forged"
        await watcher.subscribe()
        ((state, error),) = watcher.states
        assert state == RealtimeSubscribeStates.CHANNEL_ERROR
        assert "MalformedJWT: The token provided is not a valid JWT" in str(error)


async def test_it_hears_of_a_refused_subscription(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        await watcher.subscribe(table="missing")
        await wait_until(lambda: len(watcher.states) == 2)
        state, error = watcher.states[1]
        assert state == RealtimeSubscribeStates.CHANNEL_ERROR
        assert "Unable to subscribe" in str(error)


async def test_it_joins_again_by_itself_after_an_error_and_misses_nothing_afterwards(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        await watcher.subscribe()
        await wait_until(lambda: server.subscriptions.made[0].is_started)
        server.subscriptions.made[0].outlet.send_system(status="error", message="resync: truncate")
        await wait_until(lambda: len(server.subscriptions.made) == 2)
        assert server.subscriptions.made[0].is_closed
        await wait_until(lambda: len(watcher.states) == 3)
        assert [state for state, _ in watcher.states] == [
            RealtimeSubscribeStates.SUBSCRIBED,
            RealtimeSubscribeStates.CHANNEL_ERROR,
            RealtimeSubscribeStates.SUBSCRIBED,
        ]
        server.subscriptions.made[1].send({"id": 9})
        await wait_until(lambda: watcher.changes)


async def test_it_joins_again_by_itself_after_a_fault_of_ours(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        await watcher.subscribe()
        await wait_until(lambda: server.subscriptions.made[0].is_started)
        server.subscriptions.made[0].outlet.close_failed("internal_error: a bug")
        await wait_until(lambda: watcher.states[-1][0] == RealtimeSubscribeStates.SUBSCRIBED)
        await wait_until(lambda: len(server.subscriptions.made) == 2)
        await wait_until(lambda: server.subscriptions.made[1].is_started)
        server.subscriptions.made[1].send({"id": 9})
        await wait_until(lambda: watcher.changes)


async def test_it_leaves_and_joins_again(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        channel = await watcher.subscribe()
        await channel.unsubscribe()
        await wait_until(lambda: watcher.states[-1][0] == RealtimeSubscribeStates.CLOSED)
        await wait_until(lambda: server.subscriptions.made[0].is_closed)
        await watcher.subscribe()
        await wait_until(lambda: len(server.subscriptions.made) == 2)
        server.subscriptions.made[1].send({"id": 1})
        await wait_until(lambda: watcher.changes)


async def test_it_refreshes_its_token_without_leaving(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        await watcher.subscribe()
        await watcher.client.set_auth("user:ada")
        await wait_until(lambda: len(server.subscriptions.made) == 2)
        new = server.subscriptions.made[1]
        assert new.identity.subject == "ada"
        await wait_until(lambda: new.is_started)
        new.send({"id": 2})
        await wait_until(lambda: watcher.changes)


async def test_two_channels_of_one_client_do_not_mix(run_server):
    async with run_server() as server, Watcher(server) as watcher:
        await watcher.subscribe()
        other = watcher.client.channel("other")
        seen = []
        other.on_postgres_changes(
            "INSERT", schema="public", table="customers", callback=seen.append
        )
        await other.subscribe()
        await wait_until(lambda: len(server.subscriptions.made) == 2)
        by_table = {
            each.bindings[0].parameters["table"]: each for each in server.subscriptions.made
        }
        by_table["customers"].send({"id": 3})
        by_table["orders"].send({"id": 4})
        await wait_until(lambda: seen and watcher.changes)
        assert [change["data"]["record"] for change in seen] == [{"id": 3}]
        assert [change["data"]["record"] for change in watcher.changes] == [{"id": 4}]
