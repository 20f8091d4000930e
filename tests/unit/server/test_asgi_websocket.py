"""What needs an ASGI server that does as the test wants: order and marks of the plain adapter."""

import asyncio
import contextlib

import pytest

from fixtures.realtime_server import wait_until
from heliograph.core.wire.websocket_frame import TEXT, server_frame_header
from heliograph.server.asgi_websocket import AsgiTransport
from heliograph.server.outbound import OutboundLimits

pytestmark = pytest.mark.asyncio


class Recorder:
    """A connection that notes what it is told."""

    def __init__(self):
        self.told = []

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")


async def test_feeding_is_paused_and_resumed_at_the_configured_mark():
    may_send = asyncio.Semaphore(0)
    connection = Recorder()

    async def send(_event):
        await may_send.acquire()

    transport = AsgiTransport(send, bytes_low=OutboundLimits(bytes_low=100).bytes_low)
    running = asyncio.create_task(transport.run(connection))
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
