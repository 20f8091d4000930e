"""S29: many connections that never get ready hold up nobody, and are cut at their deadlines."""

import asyncio
import base64
import contextlib
import json

import pytest
import websockets

from fixtures.realtime_server import ADAPTERS, PATH, running_server
from fixtures.waiting import wait_until
from heliograph.core.channels.server_connection import ConnectionLimits

pytestmark = [pytest.mark.security, pytest.mark.asyncio]

#: Of each kind of `STARTS`.
COUNT = 50

UPGRADE = (
    f"GET {PATH}?apikey=anon&vsn=2.0.0 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
).encode()

#: What a slow client has sent when it stops, by what is missing.
STARTS = {
    "everything": b"",
    "half of the request line": UPGRADE[:20],
    "the end of the head": UPGRADE + b"X: ",
    "any message": UPGRADE + b"\r\n",
    # A text frame of 100 bytes.
    "the rest of a message": UPGRADE + b"\r\n",
}
HALF_A_FRAME = bytes([0x81, 0x80 | 100, 0, 0, 0, 0]) + b"[null"


class SlowClient:
    """A connection that stopped in the middle."""

    def __init__(self, missing, reader, writer):
        self.missing, self.reader, self.writer = missing, reader, writer

    @classmethod
    async def connect(cls, server, missing):
        streams = await asyncio.open_connection(server.address.host, server.address.port)
        client = cls(missing, *streams)
        client.writer.write(STARTS[missing])
        if STARTS[missing].endswith(b"\r\n\r\n"):
            async with asyncio.timeout(10):
                assert b" 101 " in await client.reader.readuntil(b"\r\n\r\n")
        if missing == "the rest of a message":
            client.writer.write(HALF_A_FRAME)
        return client

    def drip(self):
        """Send one byte more of what never ends."""
        if self.missing in {"the end of the head", "the rest of a message"}:
            self.writer.write(b"x")

    def is_open(self):
        return not self.reader._eof and self.reader.exception() is None


@contextlib.asynccontextmanager
async def slow_clients(server):
    clients = []
    try:
        for missing in [*STARTS] * COUNT:
            client = await SlowClient.connect(server, missing)
            clients.append(client)
        yield clients
    finally:
        for client in clients:
            client.writer.transport.abort()


async def subscribe(server, socket, slow):
    """Join, be told a change and have a heartbeat answered, while bytes drip elsewhere."""

    async def answered(*message):
        await socket.send(json.dumps(message))
        for client in slow:
            client.drip()
        async with asyncio.timeout(10):
            return json.loads(await socket.recv())

    entry = {"event": "*", "schema": "public", "table": "orders"}
    config = {"postgres_changes": [entry]}
    reply = await answered("1", "1", "realtime:room", "phx_join", {"config": config})
    assert reply[4]["status"] == "ok"
    async with asyncio.timeout(10):
        assert "Subscribed" in await socket.recv()
        server.subscriptions.made[-1].send({"id": 1})
        assert json.loads(await socket.recv())[4]["data"]["record"] == {"id": 1}
    assert (await answered(None, "2", "phoenix", "heartbeat", {}))[4]["status"] == "ok"


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
async def test_half_open_connections_hold_up_nobody(monkeypatch, adapter):
    # None of them is cut meanwhile: whoever waited for that would wait for ten minutes.
    monkeypatch.setattr("heliograph.server.uvicorn_http.HANDSHAKE_DEADLINE_S", 600)
    limits = ConnectionLimits(first_message_s=600, silence_s=600)
    async with ADAPTERS[adapter](limits=limits) as server, slow_clients(server) as slow:
        for _ in range(3):
            async with websockets.connect(server.ws_url()) as socket:
                await subscribe(server, socket, slow)
        assert all(client.is_open() for client in slow)


async def test_half_open_connections_are_cut_and_who_is_ready_stays(monkeypatch):
    monkeypatch.setattr("heliograph.server.uvicorn_http.HANDSHAKE_DEADLINE_S", 0.3)
    async with running_server(limits=ConnectionLimits(first_message_s=1.0)) as server:
        async with websockets.connect(server.ws_url()) as socket:
            await subscribe(server, socket, ())
            async with slow_clients(server) as slow:
                await wait_until(lambda: not any(client.is_open() for client in slow))
            server.subscriptions.made[-1].send({"id": 2})
            async with asyncio.timeout(10):
                assert json.loads(await socket.recv())[4]["data"]["record"] == {"id": 2}
        await wait_until(lambda: server.metric("connections") == 0)
