"""What needs an ASGI server that does as the test wants: order and marks of the plain adapter."""

import asyncio
import contextlib

import pytest

from fixtures.realtime_server import PATH, make_parts
from fixtures.waiting import wait_until
from heliograph.core.wire.websocket_frame import TEXT, server_frame_header
from heliograph.server.app import build_app
from heliograph.server.asgi_websocket import AsgiTransport
from heliograph.server.outbound import OutboundLimits

pytestmark = pytest.mark.asyncio


class Socket:
    """One socket of an ASGI server: `sent` holds what the application gave it."""

    def __init__(self, app, *, accepts=True):
        self.sent, self.incoming = [], asyncio.Queue()
        self._may_accept = asyncio.Event()
        if accepts:
            self._may_accept.set()
        scope = {
            "type": "websocket",
            "path": PATH,
            "query_string": b"apikey=anon&vsn=2.0.0",
            "headers": [],
            "extensions": {"websocket.http.response": {}},
        }
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(scope, self.incoming.get, self._send))

    async def _send(self, event):
        if event["type"] == "websocket.accept":
            await self._may_accept.wait()
        self.sent.append(event)

    def types(self):
        return [event["type"].removeprefix("websocket.") for event in self.sent]

    async def end(self):
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.task


async def test_a_socket_that_is_not_accepted_yet_counts():
    parts, _, _ = make_parts(connections_max=2)
    app = build_app(parts)
    waiting = [Socket(app, accepts=False) for _ in range(2)]
    await wait_until(lambda: app.state.connections.count() == 2)
    refused = Socket(app)
    await refused.task
    assert refused.sent[0]["status"] == 429
    for socket in waiting:
        await socket.end()
    assert app.state.connections.count() == 0


async def test_a_drain_before_the_acceptance_comes_behind_it():
    parts, _, _ = make_parts()
    app = build_app(parts)
    socket = Socket(app)
    await wait_until(lambda: app.state.connections.count() == 1)
    draining = asyncio.create_task(app.state.connections.drain())
    await wait_until(lambda: len(socket.sent) == 2)
    assert socket.types() == ["accept", "close"]
    await socket.end()
    assert await draining == 0


async def test_a_text_is_measured_in_bytes():
    parts, _, _ = make_parts(message_bytes_max=2_000)
    socket = Socket(build_app(parts))
    text = '["1","1","realtime:é","phx_join",{}]'
    socket.incoming.put_nowait({"type": "websocket.receive", "text": text})
    await wait_until(lambda: parts.metrics.traffic.bytes_received == len(text.encode()))
    socket.incoming.put_nowait({"type": "websocket.receive", "text": "é" * 1_001})
    await wait_until(lambda: socket.sent[-1]["type"] == "websocket.close")
    assert socket.sent[-1]["code"] == 1009
    await socket.end()


class Recorder:
    """A connection that notes what it is told."""

    def __init__(self):
        self.told = []

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")


async def test_a_close_reason_fits_a_control_frame():
    sent = []

    async def send(event):
        sent.append(event)

    transport = AsgiTransport(send, bytes_low=100)
    transport.cut = lambda: None
    transport.close(1001, "é" * 100)
    running = asyncio.create_task(transport.run(Recorder()))
    await wait_until(lambda: len(sent) == 2)
    assert sent[1]["reason"] == "é" * 61
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_feeding_is_paused_and_resumed_at_the_configured_mark():
    may_send = asyncio.Semaphore(0)
    connection = Recorder()

    async def send(_event):
        await may_send.acquire()

    transport = AsgiTransport(send, bytes_low=OutboundLimits(bytes_low=100).bytes_low)
    running = asyncio.create_task(transport.run(connection))
    may_send.release()
    frame = server_frame_header(TEXT, 60) + b"x" * 60
    transport.write(frame * 3)
    for told in ("pause", "resume"):
        may_send.release()
        await wait_until(lambda told=told: told in connection.told[-1:])
        running_at = transport.buffered_bytes()
        assert running_at == {"pause": 120, "resume": 60}[told]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
