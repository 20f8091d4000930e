"""`heliograph tail`'s connection against our own WebSocket server, both adapters."""

import asyncio

import pytest

from fixtures.realtime_server import ADAPTERS
from fixtures.tail_kit import Keys, Seen, running
from fixtures.waiting import wait_until
from heliograph import limits
from heliograph.cli.tail_connection import TailConnection, endpoint_of
from heliograph.cli.tail_conversation import TailRequest
from heliograph.core.channels import server_channel
from heliograph.errors import AuthorizationError, SubscriptionRefusedError
from heliograph.server.system_clock import SystemClock

pytestmark = pytest.mark.asyncio

SUBSCRIBED = "subscribed; changes appear as they are committed"
RECONNECTED = "reconnected; changes in between are not shown"


@pytest.fixture(params=sorted(ADAPTERS))
def run_server(request):
    return ADAPTERS[request.param]


def tailing(server, seen, keys, table="orders", **options):
    return TailConnection(
        endpoint=endpoint_of(server.address.url),
        request=TailRequest("public", table, "UPDATE", "id=eq.7", ("id",)),
        keys=keys,
        sink=seen,
        clock=SystemClock(),
        **options,
    )


async def test_changes_arrive_as_the_user_of_the_token(run_server):
    seen = Seen()
    async with run_server() as server, running(tailing(server, seen, Keys("anon", "user:ada"))):
        await wait_until(lambda: seen.notices == [SUBSCRIBED])
        [subscription] = server.subscriptions.made
        assert subscription.identity.subject == "ada"
        assert dict(subscription.bindings[0].parameters) == {
            "event": "UPDATE",
            "schema": "public",
            "table": "orders",
            "filter": "id=eq.7",
            "select": ["id"],
        }
        subscription.send({"id": 7})
        await wait_until(lambda: seen.changes)
        assert seen.changes[0]["record"] == {"id": 7}


async def test_the_key_alone_is_who_speaks_when_there_is_no_token(run_server):
    seen = Seen()
    async with run_server() as server, running(tailing(server, seen, Keys("service_role"))):
        await wait_until(lambda: seen.notices)
        assert server.subscriptions.made[0].identity.role == "service_role"


async def test_heartbeats_are_answered_and_a_newer_token_goes_unnoticed(run_server, monkeypatch):
    monkeypatch.setattr(limits, "TAIL_HEARTBEAT_INTERVAL_S", 0.05)
    seen = Seen()
    keys = Keys("anon", "user:ada:60", "user:ada:120")
    async with run_server() as server, running(tailing(server, seen, keys)):
        await wait_until(lambda: len(server.subscriptions.made) == 2)
        newest = server.subscriptions.made[1]
        await wait_until(lambda: newest.is_started)
        newest.send({"id": 1})
        await wait_until(lambda: seen.changes)
    assert seen.notices == [SUBSCRIBED]


async def test_a_token_that_expires_is_replaced_by_a_new_connection(run_server):
    seen = Seen()
    keys = Keys("anon", "user:ada:1", "user:ada")
    async with run_server() as server, running(tailing(server, seen, keys)):
        await wait_until(lambda: RECONNECTED in seen.notices)
    assert "Token has expired" in seen.notices[1]


async def test_a_drained_server_is_looked_for_again(run_server):
    seen = Seen()
    waits = []

    async def at_once(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    async with run_server() as server:
        connection = tailing(server, seen, Keys("anon"), sleep=at_once)
        async with running(connection):
            await wait_until(lambda: seen.notices)
            server.stop.request()
            await wait_until(lambda: len(waits) > 2)
    assert "code 1012" in seen.notices[1]
    # Nobody listens any more, or says that it is about to end.
    assert "trying again in 2 s" in seen.notices[3]


async def test_refusals_end_it_with_the_servers_words(run_server):
    async with run_server() as server:
        with pytest.raises(AuthorizationError, match="401"):
            await tailing(server, Seen(), Keys("forged")).run()
        with pytest.raises(SubscriptionRefusedError, match="MalformedJWT"):
            await tailing(server, Seen(), Keys("anon", "forged")).run()
        with pytest.raises(SubscriptionRefusedError, match="Unable to subscribe"):
            await tailing(server, Seen(), Keys("anon"), table="missing").run()


async def test_a_database_that_is_away_is_waited_for(run_server, monkeypatch):
    monkeypatch.setattr(server_channel, "SUBSCRIBE_RETRY_S", 0.5)
    seen = Seen()
    async with run_server() as server:
        server.subscriptions.is_available = False
        async with running(tailing(server, seen, Keys("anon"))):
            await wait_until(lambda: seen.notices)
            assert "tries again" in seen.notices[0]
            server.subscriptions.is_available = True
            await wait_until(lambda: SUBSCRIBED in seen.notices)
