"""`heliograph tail` against a server that speaks serializer 2.0.0 and can misbehave."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedOK

from fixtures.tail_kit import Keys, Seen, running
from heliograph import limits
from heliograph.cli.tail_connection import TailConnection, endpoint_of
from heliograph.cli.tail_conversation import TailRequest
from heliograph.errors import (
    AuthorizationError,
    ConfigurationError,
    SubscriptionRefusedError,
    UnavailableError,
)

TOPIC = "realtime:heliograph-tail"


class LoopClock:
    """The event loop's clock."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def unix_s(self) -> float:
        return 0.0


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAIL_HEARTBEAT_INTERVAL_S", 0.05)


Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, **options):
    async with serve(handler, "127.0.0.1", 0, **options) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def receive(socket: ServerConnection) -> list:
    async with asyncio.timeout(10):
        return json.loads(await socket.recv())


async def send(socket: ServerConnection, event: str, payload: object, ref: str | None = None):
    await socket.send(json.dumps(["1", ref, TOPIC, event, payload]))


async def subscribe(socket: ServerConnection) -> list:
    join = await receive(socket)
    await send(socket, "phx_reply", {"status": "ok", "response": {}}, ref=join[1])
    text = {"message": "Subscribed to PostgreSQL", "extension": "postgres_changes"}
    await send(socket, "system", {**text, "status": "ok", "channel": "x"})
    return join


async def send_change(socket: ServerConnection, number: int) -> None:
    await send(socket, "postgres_changes", {"ids": [1], "data": {"record": {"id": number}}})


def tailing(url: str, seen: Seen, keys: Keys | None = None) -> TailConnection:
    return TailConnection(
        endpoint=endpoint_of(url),
        request=TailRequest("public", "orders"),
        keys=keys or Keys("the key"),
        sink=seen,
        clock=LoopClock(),
        sleep=no_sleep,
    )


@pytest.mark.asyncio
async def test_changes_arrive_and_the_key_stays_out_of_the_address():
    seen = Seen()
    requests: list[tuple[str, str | None]] = []

    async def handle(socket: ServerConnection) -> None:
        assert socket.request is not None
        requests.append((socket.request.path, socket.request.headers.get("x-api-key")))
        await subscribe(socket)
        await send_change(socket, 1)
        await send_change(socket, 2)
        await socket.wait_closed()

    async with server(handle) as url, running(tailing(url, seen)):
        await seen.wait(lambda: len(seen.changes) == 2)
    assert [change["record"]["id"] for change in seen.changes] == [1, 2]
    assert seen.notices == ["subscribed; changes appear as they are committed"]
    assert requests == [("/realtime/v1/websocket?vsn=2.0.0", "the key")]


@pytest.mark.asyncio
async def test_a_lost_connection_is_opened_again_and_the_gap_is_admitted():
    seen = Seen()
    sockets: list[ServerConnection] = []

    async def handle(socket: ServerConnection) -> None:
        sockets.append(socket)
        await subscribe(socket)
        await send_change(socket, len(sockets))
        if len(sockets) == 1:
            await seen.wait(lambda: seen.changes)
            await socket.close(1012, "restart")
        elif len(sockets) == 2:
            await seen.wait(lambda: len(seen.changes) == 2)
            socket.transport.abort()
        await socket.wait_closed()

    async with server(handle) as url, running(tailing(url, seen)):
        await seen.wait(lambda: len(seen.changes) == 3)
    first_wait = f"{limits.TAIL_RECONNECT_WAIT_FIRST_S:g}"
    assert seen.notices == [
        "subscribed; changes appear as they are committed",
        f"the connection was closed (code 1012: restart); trying again in {first_wait} s",
        "reconnected; changes in between are not shown",
        f"the connection was closed (without a close frame); trying again in {first_wait} s",
        "reconnected; changes in between are not shown",
    ]


@pytest.mark.asyncio
async def test_the_wait_doubles_while_the_server_stays_away():
    seen = Seen()
    waits: list[float] = []
    enough = asyncio.Event()
    stop: list[asyncio.AbstractServer] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 8:
            enough.set()
        await asyncio.sleep(0)

    async def handle(socket: ServerConnection) -> None:
        await subscribe(socket)
        await seen.wait(lambda: seen.notices)
        stop[0].close()

    async with serve(handle, "127.0.0.1", 0) as listening:
        stop.append(listening)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        connection = tailing(url, seen)
        connection.sleep = sleep
        async with running(connection), asyncio.timeout(10):
            await enough.wait()
    first, last = limits.TAIL_RECONNECT_WAIT_FIRST_S, limits.TAIL_RECONNECT_WAIT_LAST_S
    assert waits[:3] == [first, 2 * first, 4 * first]
    assert waits[-1] == last
    assert "can not be reached" in seen.notices[-1]


@pytest.mark.asyncio
async def test_heartbeats_are_sent_and_a_newer_token_before_them(hurried):
    seen = Seen()
    received: list[list] = []

    async def handle(socket: ServerConnection) -> None:
        received.append(await subscribe(socket))
        while len(received) < 4:
            received.append(await receive(socket))
            if received[-1][3] == "heartbeat":
                ref, topic = received[-1][1:3]
                answer = [None, ref, topic, "phx_reply", {"status": "ok", "response": {}}]
                await socket.send(json.dumps(answer))
        seen.show_notice("enough")
        await socket.wait_closed()

    async with (
        server(handle) as url,
        running(tailing(url, seen, Keys("the key", "first", "second"))),
    ):
        await seen.wait(lambda: "enough" in seen.notices)
    assert received[0][4]["access_token"] == "first"
    assert [message[3] for message in received[1:]] == ["access_token", "heartbeat", "heartbeat"]
    assert received[1][4] == {"access_token": "second"}


class FloodedSocket:
    """Always has another message, so that nobody ever waits for one."""

    def __init__(self) -> None:
        self.heartbeats = 0
        self._answers: list[str] = []

    async def send(self, frame: str) -> None:
        join_ref, ref, topic, event, _ = json.loads(frame)
        self.heartbeats += event == "heartbeat"
        if self.heartbeats == 3:
            raise ConnectionClosedOK(None, None)
        answer = [join_ref, ref, topic, "phx_reply", {"status": "ok", "response": {}}]
        self._answers.append(json.dumps(answer))

    async def recv(self) -> str:
        if self._answers:
            return self._answers.pop()
        return json.dumps([None, None, TOPIC, "postgres_changes", {"data": {"record": {}}}])


@pytest.mark.asyncio
async def test_a_steady_stream_of_changes_does_not_hold_heartbeats_back(hurried):
    seen = Seen()
    socket = FloodedSocket()
    with pytest.raises(ConnectionClosedOK):
        await tailing("http://h", seen)._converse(socket)
    assert socket.heartbeats == 3
    assert len(seen.changes) > 3


@pytest.mark.asyncio
async def test_a_server_that_falls_silent_is_left_and_found_again(hurried):
    seen = Seen()
    sockets = 0

    async def handle(socket: ServerConnection) -> None:
        nonlocal sockets
        sockets += 1
        await subscribe(socket)
        await socket.wait_closed()

    async with server(handle) as url, running(tailing(url, seen)):
        await seen.wait(lambda: "reconnected; changes in between are not shown" in seen.notices)
    assert any("does not answer heartbeats" in notice for notice in seen.notices)


@pytest.mark.asyncio
async def test_a_refused_key_ends_it_with_the_servers_words():
    async def handle(socket: ServerConnection) -> None:
        raise AssertionError(socket)

    def refuse(socket: ServerConnection, _request):
        return socket.respond(HTTPStatus.UNAUTHORIZED, '{"error": "Token has expired"}')

    async with server(handle, process_request=refuse) as url:
        with pytest.raises(AuthorizationError, match="401: Token has expired"):
            await tailing(url, Seen()).run()


@pytest.mark.asyncio
async def test_a_busy_server_is_unavailable_and_an_odd_answer_is_explained():
    async def handle(socket: ServerConnection) -> None:
        raise AssertionError(socket)

    def refuse(socket: ServerConnection, _request):
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "busy")

    async with server(handle, process_request=refuse) as url:
        with pytest.raises(UnavailableError, match="503: no reason given"):
            await tailing(url, Seen()).run()


@pytest.mark.asyncio
async def test_a_refused_subscription_ends_it():
    async def handle(socket: ServerConnection) -> None:
        join = await receive(socket)
        reply = {"status": "error", "response": {"reason": "Unauthorized: no"}}
        await send(socket, "phx_reply", reply, ref=join[1])
        await socket.wait_closed()

    async with server(handle) as url:
        with pytest.raises(SubscriptionRefusedError, match="Unauthorized: no"):
            await tailing(url, Seen()).run()


@pytest.mark.asyncio
async def test_without_a_server_it_ends_at_once():
    async with server(no_sleep) as url:
        pass
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ can not be reached"):
        await tailing(url, Seen()).run()


@pytest.mark.asyncio
async def test_what_is_no_websocket_server_is_unavailable():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.com ready\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(UnavailableError, match="does not speak WebSocket"):
            await tailing(url, Seen()).run()


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/realtime/v1/websocket?vsn=2.0.0"),
        ("https://a.example.com/", "wss://a.example.com/realtime/v1/websocket?vsn=2.0.0"),
        ("ws://h/base/?x#y", "ws://h/base/realtime/v1/websocket?vsn=2.0.0"),
    ],
)
def test_the_endpoint_follows_from_the_servers_address(url, endpoint):
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://h", "http://", "http://h:x", "http://["]
)
def test_what_is_no_address_of_a_server_is_a_configuration_error(url):
    with pytest.raises(ConfigurationError, match="http://127"):
        endpoint_of(url)
