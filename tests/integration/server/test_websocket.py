"""The realtime endpoint over real sockets, by both adapters."""

import asyncio
import contextlib
import json

import pytest
import websockets

from fixtures.realtime_server import ADAPTERS, PATH
from fixtures.waiting import wait_until
from heliograph.core.channels import server_channel
from heliograph.core.channels.server_connection import ConnectionLimits
from heliograph.server.outbound import OutboundLimits

ORDERS = {"event": "*", "schema": "public", "table": "orders"}

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=sorted(ADAPTERS))
def run_server(request):
    return ADAPTERS[request.param]


class Client:
    """A client of serializer 2.0.0."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, *message):
        await self.socket.send(json.dumps(message))

    async def receive(self):
        async with asyncio.timeout(10):
            return json.loads(await self.socket.recv())

    async def join(self, topic="realtime:room", changes=(ORDERS,), ref="1", **payload):
        config = {"postgres_changes": list(changes)}
        await self.send(ref, ref, topic, "phx_join", {"config": config, **payload})

    async def joined(self, **join):
        """Join and wait for the reply and for "Subscribed to PostgreSQL"."""
        await self.join(**join)
        reply = await self.receive()
        assert reply[3] == "phx_reply", reply
        assert reply[4]["status"] == "ok", reply
        system = await self.receive()
        assert system[4]["message"] == "Subscribed to PostgreSQL"
        return reply

    async def closed(self):
        """Wait for the end; return the close code and reason."""
        async with asyncio.timeout(15):
            try:
                while True:
                    await self.socket.recv()
            except websockets.ConnectionClosed as closed:
                received = closed.rcvd
                return (received.code, received.reason) if received else None


class Connected:
    """Connect a `Client`."""

    def __init__(self, server, key="anon", *, headers=None, **options):
        self._connecting = websockets.connect(
            server.ws_url(key, **options), additional_headers=headers, max_size=None, max_queue=None
        )

    async def __aenter__(self):
        return Client(await self._connecting.__aenter__())

    async def __aexit__(self, *exception):
        await self._connecting.__aexit__(*exception)


async def test_a_change_arrives_after_the_join_was_answered(run_server):
    async with run_server() as server, Connected(server) as client:
        reply = await client.joined()
        (entry,) = reply[4]["response"]["postgres_changes"]
        (subscription,) = server.subscriptions.made
        assert subscription.identity.role == "anon"
        assert [dict(each.parameters) for each in subscription.bindings] == [ORDERS]
        subscription.send({"id": 7})
        change = await client.receive()
        assert change[:4] == [None, None, "realtime:room", "postgres_changes"]
        assert change[4]["ids"] == [entry["id"]]
        assert change[4]["data"]["record"] == {"id": 7}


async def test_serializer_1_is_the_default(run_server):
    async with run_server() as server, Connected(server, vsn=None) as client:
        await client.socket.send('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":null}')
        assert await client.receive() == {
            "event": "phx_reply",
            "payload": {"status": "ok", "response": {}},
            "ref": None,
            "topic": "phoenix",
        }


async def test_the_other_path_is_served_too(run_server):
    async with run_server() as server, Connected(server, path="/socket/websocket") as client:
        await client.send(None, "1", "phoenix", "heartbeat", {})
        assert (await client.receive())[1] == "1"


async def test_a_legacy_join_gets_events_of_their_own_type(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.send("1", "1", "realtime:public:orders", "phx_join", {})
        await client.receive()
        await client.receive()
        server.subscriptions.made[0].send({"id": 1}, kind="UPDATE")
        frame = await client.receive()
        assert frame[3] == "UPDATE"
        assert frame[4]["record"] == {"id": 1}


async def test_many_frames_of_one_tick_arrive_in_order(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined()
        writes = server.parts.metrics.traffic.writes
        for number in range(500):
            server.subscriptions.made[0].send({"id": number})
        seen = [(await client.receive())[4]["data"]["record"]["id"] for _ in range(500)]
        assert seen == list(range(500))
        assert server.parts.metrics.traffic.writes == writes + 1


async def test_a_note_of_the_subscription_comes_after_the_joins_answer(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined(changes=[{"table": "noisy"}])
        note = await client.receive()
        assert note[4]["message"] == "a note before the start"


async def test_a_refused_subscription_keeps_the_channel_and_an_away_database_is_retried(
    run_server, monkeypatch
):
    monkeypatch.setattr(server_channel, "SUBSCRIBE_RETRY_S", 0.5)
    async with run_server() as server, Connected(server) as client:
        await client.join(changes=[{"table": "missing"}])
        assert (await client.receive())[4]["status"] == "ok"
        assert (await client.receive())[4]["message"].startswith("Unable to subscribe")
        server.subscriptions.is_available = False
        await client.join("realtime:b", ref="2")
        assert (await client.receive())[4]["status"] == "ok"
        assert "does not answer" in (await client.receive())[4]["message"]
        server.subscriptions.is_available = True
        assert (await client.receive())[4]["message"] == "Subscribed to PostgreSQL"


async def test_leave_during_a_pending_join_cancels_the_subscribing(run_server):
    async with run_server() as server, Connected(server) as client:
        server.subscriptions.gate = asyncio.Event()
        await client.join()
        await client.send(None, "h", "phoenix", "heartbeat", {})
        assert (await client.receive())[1] == "h"
        await client.send("1", "2", "realtime:room", "phx_leave", {})
        assert (await client.receive())[3] == "phx_reply"
        assert (await client.receive())[3:] == ["phx_close", {}]
        await wait_until(lambda: server.subscriptions.cancelled == 1)
        assert server.subscriptions.made == []


async def test_a_slow_join_does_not_hold_up_another(run_server):
    async with run_server() as server, Connected(server) as client:
        server.subscriptions.gate = asyncio.Event()
        await client.join("realtime:slow")
        await client.join("realtime:quick", changes=[], ref="2")
        assert (await client.receive())[2] == "realtime:quick"
        server.subscriptions.gate.set()
        assert (await client.receive())[2] == "realtime:slow"


async def test_a_new_token_hands_over_from_the_old_subscription_to_the_new(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined()
        await client.send("1", "2", "realtime:room", "access_token", {"access_token": "user:ada"})
        assert (await client.receive())[4]["message"] == "Subscribed to PostgreSQL"
        old, new = server.subscriptions.made
        assert new.identity.subject == "ada"
        assert new.replaces is old
        assert (old.is_closed, new.is_started, new.is_closed) == (True, True, False)
        await client.send("1", "3", "realtime:room", "access_token", {"access_token": "user:bob"})
        assert "another user" in (await client.receive())[4]["message"]
        assert (await client.receive())[3] == "phx_close"
        assert new.is_closed


@pytest.mark.security
async def test_an_expired_token_closes_its_channel(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined(access_token="user:ada:1")
        assert "Token has expired 0 seconds ago" in (await client.receive())[4]["message"]
        assert (await client.receive())[3] == "phx_close"
        assert server.subscriptions.made[0].is_closed


async def test_a_bad_token_refuses_the_join(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.join(access_token="forged")
        assert (await client.receive())[4]["response"] == {
            "reason": "MalformedJWT: The token provided is not a valid JWT"
        }
        assert server.metric("joins_total", result="MalformedJWT") == 1
        server.keys.is_available = False
        await client.join(access_token="user:ada", ref="2")
        assert "UnableToVerifyToken" in (await client.receive())[4]["response"]["reason"]


async def test_a_subscription_is_closed_when_its_client_is_gone(run_server):
    async with run_server() as server:
        async with Connected(server) as client:
            await client.joined()
            assert server.metric("connections") == 1
            assert server.metric("channels") == 1
        await wait_until(lambda: server.subscriptions.made[0].is_closed)
        await wait_until(lambda: server.metric("connections") == 0)
        assert server.metric("closes_total", code="1000", reason="normal") == 1


@pytest.mark.security
async def test_a_client_can_not_make_its_close_look_like_ours(run_server):
    async with run_server() as server:
        for code in (1001, 1011, 3008, 4000):
            async with Connected(server) as client:
                await client.socket.close(code)
        await wait_until(lambda: server.metric("closes_total", code="1000", reason="normal") == 4)
        for code, reason in (("1011", "internal_error"), ("3008", "slow_consumer")):
            assert server.metric("closes_total", code=code, reason=reason) == 0


async def test_a_hopeless_channel_is_closed_and_its_socket_stays(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined()
        server.subscriptions.made[0].outlet.close_hopeless("judgement keeps timing out")
        assert (await client.receive())[4]["message"] == "judgement keeps timing out"
        assert (await client.receive())[3] == "phx_close"
        assert server.subscriptions.made[0].is_closed
        await client.joined(ref="2")


async def test_a_channel_that_we_failed_ends_in_an_error_and_its_socket_stays(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined()
        server.subscriptions.made[0].outlet.close_failed("internal_error: a bug")
        assert (await client.receive())[4]["message"] == "internal_error: a bug"
        assert (await client.receive())[3] == "phx_error"
        assert server.subscriptions.made[0].is_closed
        await client.joined(ref="2")


async def test_a_bug_in_subscribing_ends_that_connection_only(run_server):
    async with run_server() as server, Connected(server) as other, Connected(server) as client:
        await other.joined()
        await client.join(changes=[{"table": "boom"}])
        assert await client.closed() == (1011, "internal error")
        server.subscriptions.made[0].send({"id": 1})
        assert (await other.receive())[3] == "postgres_changes"


async def test_malformed_messages_are_dropped_and_the_connection_stays(run_server):
    async with run_server() as server, Connected(server) as client:
        for text in ("", "{", "[]", '{"a":1}', "[" * 100_000):
            await client.socket.send(text)
        await client.socket.send(b"\x07binary")
        await client.joined()
        assert server.metric("malformed_messages_total", kind="text") == 5
        assert server.metric("malformed_messages_total", kind="binary") == 1


@pytest.mark.parametrize("name", ['a"b', "a';drop table x;--", "x" * 200, "é" * 64, "a\x00b"])
async def test_names_are_passed_on_as_they_are_or_refused(run_server, name):
    async with run_server() as server, Connected(server) as client:
        await client.join(changes=[{"event": "*", "schema": "public", "table": name}])
        reply = await client.receive()
        if "\x00" in name:
            assert "u0000" in reply[4]["response"]["reason"]
        else:
            assert reply[4]["response"]["postgres_changes"][0]["table"] == name


@pytest.mark.security
async def test_ten_thousand_joins_end_their_connection_and_disturb_nobody(run_server):
    async with run_server() as server, Connected(server) as other, Connected(server) as client:
        await other.joined()
        with contextlib.suppress(websockets.ConnectionClosed):
            for number in range(10_000):
                await client.join(f"realtime:{number}", ref=str(number))
                if number % 100 == 0:
                    await asyncio.sleep(0)
        assert (await client.closed())[0] in {1001, 1008}
        assert len(server.subscriptions.made) <= 201
        await wait_until(lambda: all(each.is_closed for each in server.subscriptions.made[1:]))
        server.subscriptions.made[0].send({"id": 1})
        assert (await other.receive())[3] == "postgres_changes"


@pytest.mark.security
async def test_a_message_that_is_too_large_closes_with_1009(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.socket.send("x" * (1024 * 1024 + 1))
        assert (await client.closed())[0] == 1009


async def test_what_is_received_is_counted_in_bytes(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.socket.send("é" * 1_000)
        await wait_until(lambda: server.metric("received_bytes_total") == 2_000)


async def test_a_socket_that_says_nothing_is_closed(run_server):
    limits = ConnectionLimits(first_message_s=0.2)
    async with run_server(limits=limits) as server, Connected(server) as client:
        assert await client.closed() == (1008, "no message in time")


async def test_a_silent_socket_is_closed_with_3010(run_server):
    limits = ConnectionLimits(silence_s=2.0)
    async with run_server(limits=limits) as server, Connected(server) as client:
        await client.joined()
        assert (await client.closed())[0] == 3010


async def test_drain_tells_each_channel_and_closes_with_1012(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined()
        server.stop.request()
        message = await client.receive()
        assert message[4] == {
            "channel": "room",
            "extension": "system",
            "status": "ok",
            "message": "Server requested disconnect",
        }
        assert (await client.closed())[0] == 1012


@pytest.mark.security
async def test_a_reader_who_stalls_costs_a_bounded_buffer_and_is_closed_with_3008(run_server):
    outbound = OutboundLimits(write_deadline_s=1.0)
    async with run_server(outbound=outbound) as server, Connected(server) as client:
        await client.joined()
        client.socket.transport.pause_reading()
        (subscription,) = server.subscriptions.made
        sent = 0
        record = {"text": "x" * 10_000}
        async with asyncio.timeout(10):
            while not subscription.is_closed:
                if subscription.outlet.has_room():
                    subscription.send(record)
                    sent += 1
                    assert server.metric("outbound_waiting_bytes") < 3 * 1024 * 1024
                else:
                    await subscription.outlet.wait_room()
        assert sent > 100
        client.socket.transport.resume_reading()
        assert (await client.closed())[0] == 3008
        await wait_until(lambda: server.metric("closes_total", code="3008", reason="slow_consumer"))


@pytest.mark.security
async def test_a_flood_beyond_the_maximum_closes_with_3008_at_once(run_server):
    outbound = OutboundLimits(bytes_high=100_000, bytes_low=10_000, bytes_max=400_000)
    async with run_server(outbound=outbound) as server, Connected(server) as client:
        await client.joined()
        (subscription,) = server.subscriptions.made
        for _ in range(100):
            if not subscription.is_closed:
                subscription.send({"text": "x" * 10_000})
        assert subscription.is_closed
        assert (await client.closed())[0] == 3008


async def test_a_reader_who_reads_again_gets_everything_in_order(run_server):
    async with run_server() as server, Connected(server) as client:
        await client.joined()
        client.socket.transport.pause_reading()
        (subscription,) = server.subscriptions.made
        number = 0
        while subscription.outlet.has_room():
            subscription.send({"id": number, "text": "x" * 10_000})
            number += 1
        waiting = asyncio.ensure_future(subscription.outlet.wait_room())
        client.socket.transport.resume_reading()
        for expected in range(number):
            assert (await client.receive())[4]["data"]["record"]["id"] == expected
        async with asyncio.timeout(10):
            await waiting


# --- Handshakes -----------------------------------------------------------------------------


async def refused(server, key="anon", *, headers=None, **options):
    """Try to connect; return the HTTP status and body."""
    try:
        async with Connected(server, key, headers=headers, **options):
            return None
    except websockets.InvalidStatus as error:
        return error.response.status_code, bytes(error.response.body or b"")


async def test_handshakes_are_refused_with_their_status_and_text(run_server):
    async with run_server() as server:
        assert await refused(server, "") == (401, b'{"error":"API key is missing"}')
        assert await refused(server, "forged") == (
            401,
            b'{"error":"The token provided is not a valid JWT"}',
        )
        assert await refused(server, "expired") == (401, b'{"error":"Token has expired"}')
        assert await refused(server, vsn="3.0.0") == (403, b"")
        server.keys.is_available = False
        assert await refused(server) == (500, b'{"error":"Error connecting to Realtime"}')
        assert server.metric("handshakes_total", status="401") == 3


async def test_the_header_wins_over_the_query(run_server):
    async with run_server() as server:
        assert (await refused(server, headers={"x-api-key": "forged"}))[0] == 401
        assert await refused(server, "forged", headers={"x-api-key": "anon"}) is None
        assert await refused(server, "", headers={"apikey": "anon"}) is None
        assert (await refused(server, "forged", headers={"apikey": "anon"}))[0] == 401


@pytest.mark.security
async def test_origins_outside_the_list_are_refused(run_server):
    async with run_server() as server:
        assert await refused(server, headers={"Origin": "https://app.example"}) is None
        for origin in (
            *("https://evil.tld", "https://app.example.evil.tld", "http://app.example", "null"),
            *("https://APP.example", "https://app.example.", "https://app.example:444"),
            "http://localhost:3000",
        ):
            assert await refused(server, headers={"Origin": origin, "Cookie": "a=b"}) == (
                403,
                b'{"error":"Origin is not allowed"}',
            )
        twice = [("Origin", "https://app.example"), ("Origin", "https://app.example")]
        # Some servers refuse a repeated header by themselves.
        assert (await refused(server, headers=twice))[0] in {400, 403}


@pytest.mark.security
async def test_a_service_key_is_refused_from_a_browser_only(run_server):
    async with run_server() as server:
        assert await refused(server, "service_role") is None
        origin = {"Origin": "https://app.example"}
        assert (await refused(server, "service_role", headers=origin))[0] == 403


async def test_too_many_connections_are_refused_with_429(run_server):
    async with run_server(connections_max=1) as server, Connected(server):
        assert await refused(server) == (429, b'{"error":"Too many connected users"}')


async def test_a_handshake_may_wait_for_keys(run_server):
    async with run_server() as server:
        server.keys.gate = asyncio.Event()
        connecting = asyncio.ensure_future(websockets.connect(server.ws_url()))
        await wait_until(lambda: connecting.done() or server.keys.gate._waiters)
        assert not connecting.done()
        server.keys.gate.set()
        socket = await connecting
        await socket.close()


async def test_the_path_answers_plain_http_with_426(run_server):
    import httpx

    async with run_server() as server, httpx.AsyncClient() as http:
        response = await http.get(server.address.url + PATH)
        assert response.status_code == 426
