"""uvicorn's HTTP protocol with the bounds it lacks: time and size of the request head (S29)."""

import asyncio
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from heliograph.limits import HANDSHAKE_BYTES_MAX, HANDSHAKE_DEADLINE_S
from heliograph.server.websocket_handshake import HandshakeRefusal


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends connections whose request head is too slow (silently) or too large (431)."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Begin before the first request."""
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._is_head_complete = False
        self._is_head_too_large = False
        self._is_handed_over = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first head."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._forget_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the head, then let uvicorn parse."""
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_handed_over:
            # uvicorn drops what stands behind the head in the same piece. A client must wait for
            # the answer (RFC 6455 §4.1), and what it sent would be missing.
            if not data.endswith(b"\n"):
                self.transport.abort()
        elif not self._is_head_complete:
            if self._head_bytes > HANDSHAKE_BYTES_MAX:
                self._refuse_head()
            elif self._head_timer is None:
                self._expect_head()

    def on_message_begin(self) -> None:
        """Begin to count anew, for every request of the connection."""
        self._is_head_complete = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the size of a head that came in one piece with others, then go on.

        An exception in a callback makes httptools stop; uvicorn then calls `send_400_response`.
        """
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HANDSHAKE_BYTES_MAX:
            self._is_head_too_large = True
            message = "the request head is too large"
            raise ValueError(message)
        self._is_head_complete = True
        self._head_bytes = 0
        self._forget_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what can not be parsed; a head that is too large has its own status."""
        self._forget_timer()
        if self._is_head_too_large:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over: this protocol is done with it."""
        self._forget_timer()
        self._is_handed_over = True
        super().handle_websocket_upgrade()

    def _refuse_head(self) -> None:
        refusal = HandshakeRefusal(431, f"The request head exceeds {HANDSHAKE_BYTES_MAX} bytes")
        if not self.transport.is_closing():
            self.transport.write(refusal.to_http())
            self.transport.close()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HANDSHAKE_DEADLINE_S, self.transport.abort)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
