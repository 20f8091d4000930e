"""WebSockets by the plain ASGI interface: under any server, inside any Starlette or FastAPI app.

The slower adapter: a dictionary and a decoded string per frame (figures in
`docs/decisions/0003-websocket-server.md`). Masks, fragments and pings are the ASGI server's
business here, and so is its own buffer below `send`; ours is bounded all the same.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from heliograph.core.wire import close_codes
from heliograph.core.wire.websocket_frame import (
    TEXT,
    close_reason,
    message_bytes,
    split_server_frames,
)
from heliograph.errors import FrameError
from heliograph.limits import CLOSE_DEADLINE_S, MESSAGE_BYTES_MAX
from heliograph.server.connection import Connection
from heliograph.server.connection_registry import ConnectionRegistry
from heliograph.server.supervision import Supervisor
from heliograph.server.websocket_handshake import HandshakeRefusal, HandshakeRequest

_REFUSAL_EXTENSION: Final = "websocket.http.response"


class AsgiWebSocket:
    """An ASGI application for the ``websocket`` scope."""

    def __init__(
        self, registry: ConnectionRegistry, *, message_bytes_max: int = MESSAGE_BYTES_MAX
    ) -> None:
        """Serve sockets.

        Args:
            registry: Decides about handshakes and keeps the connections.
            message_bytes_max: Bytes of one message of the client.
        """
        self._registry = registry
        self._message_bytes_max = message_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket until it is gone."""
        await receive()
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        ]
        request = HandshakeRequest(scope["query_string"].decode("latin-1"), headers)
        decision = await self._registry.admit(request)
        if isinstance(decision, HandshakeRefusal):
            await _refuse(decision, scope, send)
            return
        # No await since the admission: from now on the registry counts the open connection.
        async with asyncio.TaskGroup() as group:
            transport = AsgiTransport(send, bytes_low=self._registry.outbound_limits.bytes_low)
            connection = self._registry.open(
                decision, transport=transport, supervisor=Supervisor(group)
            )
            writer = group.create_task(transport.run(connection))
            reader = group.create_task(self._read(connection, receive, writer.cancel))
            transport.cut = reader.cancel

    async def _read(
        self, connection: Connection, receive: Receive, stop_writer: Callable[[], object]
    ) -> None:
        """Take messages until the socket is gone."""
        code = close_codes.ABNORMAL.number
        try:
            while (event := await receive())["type"] != "websocket.disconnect":
                self._take(connection, event)
            code = int(event.get("code") or close_codes.NO_STATUS.number)
        finally:
            self._registry.lost(connection, code)
            stop_writer()

    def _take(self, connection: Connection, event: Any) -> None:
        """Hand one message on, unless it is too large."""
        text = event.get("text")
        message: str | bytes = event["bytes"] if text is None else text
        # A server may cut at its own limit first.
        if message_bytes(message) > self._message_bytes_max:
            reason = f"a message may have at most {self._message_bytes_max} bytes"
            code = close_codes.MESSAGE_TOO_BIG.number
            connection.receive_fault(FrameError(reason, close_code=code))
        else:
            connection.receive_message(message)


class AsgiTransport:
    """Frames to one socket; implements `server.outbound.SocketTransport`.

    ``send`` waits while the client does not read, so what is handed to it counts as buffered until
    it returns.
    """

    __slots__ = (
        "_buffered_bytes",
        "_bytes_low",
        "_is_closing",
        "_is_paused",
        "_queued",
        "_send",
        "_wake",
        "cut",
    )

    def __init__(self, send: Send, *, bytes_low: int) -> None:
        """Begin with the acceptance of the handshake, which goes out before everything else.

        Args:
            send: The ASGI callable; `run` calls it.
            bytes_low: Waiting bytes above which nothing more should be flushed.
        """
        self._send = send
        self._bytes_low = bytes_low
        self._queued: deque[tuple[dict[str, Any], int]] = deque([({"type": "websocket.accept"}, 0)])
        self._buffered_bytes = 0
        self._is_paused = False
        self._is_closing = False
        self._wake = asyncio.Event()
        self._wake.set()
        self.cut: Callable[[], object] | None = None

    async def run(self, connection: Connection) -> None:
        """Send what is flushed until cancelled or the socket is gone."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queued:
                    event, size = self._queued.popleft()
                    await self._send(event)
                    self._buffered_bytes -= size
                    self._tell(connection)
        except OSError:
            # The server's word for a client that is gone; the reader learns it as a disconnect.
            return

    def write(self, frames: bytes) -> int:
        """Hand frames to the sending task: a message each, the server makes its own header."""
        for opcode, payload in split_server_frames(frames):
            event: dict[str, Any] = {"type": "websocket.send"}
            if opcode == TEXT:
                event["text"] = payload.decode()
            else:
                event["bytes"] = payload
            self._queued.append((event, len(payload)))
            self._buffered_bytes += len(payload)
        self._wake.set()
        return self._buffered_bytes

    def buffered_bytes(self) -> int:
        """Return what ``send`` has not taken yet."""
        return self._buffered_bytes

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind the rest; give up on a client that does not let us."""
        if not self._is_closing:
            self._is_closing = True
            event = {"type": "websocket.close", "code": code}
            self._queued.append(({**event, "reason": close_reason(reason).decode()}, 0))
            self._wake.set()
            asyncio.get_running_loop().call_later(CLOSE_DEADLINE_S, self.abort)

    def abort(self) -> None:
        """Return to the server, which drops the socket."""
        if self.cut is not None:
            self.cut()

    def _tell(self, connection: Connection) -> None:
        """Say when more should, or may, be flushed."""
        if self._buffered_bytes > self._bytes_low:
            if not self._is_paused:
                self._is_paused = True
                connection.pause_writing()
        elif self._is_paused or self._buffered_bytes == 0:
            self._is_paused = False
            connection.resume_writing()


async def _refuse(refusal: HandshakeRefusal, scope: Scope, send: Send) -> None:
    """Answer with status and text where the server can, else with its own 403."""
    if _REFUSAL_EXTENSION not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": close_codes.POLICY_VIOLATION.number})
        return
    await send(
        {
            "type": "websocket.http.response.start",
            "status": refusal.status,
            "headers": [(b"content-type", refusal.content_type.encode())],
        }
    )
    await send({"type": "websocket.http.response.body", "body": refusal.body})
