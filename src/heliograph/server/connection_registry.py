"""All open WebSockets of one server: admitting, counting, draining."""

import asyncio

import structlog

from heliograph.core.channels.server_channel import Opening
from heliograph.limits import CONNECTIONS_MAX, DRAIN_DEADLINE_S
from heliograph.server.connection import Connection, ConnectionParts
from heliograph.server.outbound import OutboundLimits, SocketTransport
from heliograph.server.supervision import Supervisor
from heliograph.server.websocket_handshake import (
    HandshakePolicy,
    HandshakeRefusal,
    HandshakeRequest,
)

_log = structlog.get_logger("heliograph.connections")


class ConnectionRegistry:
    """The sockets of one process, and whether more may come."""

    def __init__(
        self,
        *,
        parts: ConnectionParts,
        policy: HandshakePolicy,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Begin with none.

        Args:
            parts: What connections share.
            policy: Who may open one.
            connections_max: How many at once.
        """
        self._parts = parts
        self._policy = policy
        self._connections_max = connections_max
        self._open: set[Connection] = set()
        self._admitted = 0
        self._is_draining = False
        self._handshakes: set[asyncio.Task[None]] = set()
        self._all_closed = asyncio.Event()
        metrics = parts.metrics
        metrics.bind_gauge(metrics.connections, lambda: len(self._open))
        metrics.bind_gauge(
            metrics.channels, lambda: sum(each.channel_count() for each in self._open)
        )
        metrics.bind_gauge(
            metrics.waiting_bytes, lambda: sum(each.waiting_bytes() for each in self._open)
        )

    @property
    def outbound_limits(self) -> OutboundLimits:
        """What may wait for one client."""
        return self._parts.outbound.limits

    def count(self) -> int:
        """Return the number of open sockets."""
        return len(self._open)

    def problem(self) -> str | None:
        """Return why no new client should be sent here, or None."""
        return "the server is stopping" if self._is_draining else None

    def track_handshake(self, task: asyncio.Task[None]) -> None:
        """Have a handshake under way cancelled when the server drains."""
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def cut(self) -> None:
        """Drop every socket without a word."""
        for connection in list(self._open):
            connection.cut()

    async def admit(self, request: HandshakeRequest) -> Opening | HandshakeRefusal:
        """Decide about a handshake.

        Handshakes under way count as open, so that a flood of them can not pass the bound. Call
        `open` without an await in between.
        """
        self._admitted += 1
        try:
            decision: Opening | HandshakeRefusal
            if self._is_draining:
                decision = HandshakeRefusal(503, "Realtime is restarting, please standby")
            elif len(self._open) + self._admitted > self._connections_max:
                decision = HandshakeRefusal(429, "Too many connected users")
            else:
                decision = await self._policy.decide(request)
        finally:
            self._admitted -= 1
        status = decision.status if isinstance(decision, HandshakeRefusal) else 101
        self._parts.metrics.handshakes.labels(status).inc()
        if isinstance(decision, HandshakeRefusal):
            _log.info("handshake_refused", status=status, reason=decision.error)
        return decision

    def open(
        self, opening: Opening, *, transport: SocketTransport, supervisor: Supervisor
    ) -> Connection:
        """Begin a connection whose handshake was admitted."""
        connection = Connection(
            opening, transport=transport, supervisor=supervisor, parts=self._parts
        )
        self._open.add(connection)
        _log.info("connection_opened", vsn=opening.version.value, is_browser=opening.is_browser)
        if self._is_draining:
            connection.drain()
        return connection

    def lost(self, connection: Connection, code: int) -> None:
        """Learn that a socket is gone; idempotent."""
        connection.lost(code)
        self._open.discard(connection)
        if self._is_draining and not self._open:
            self._all_closed.set()

    async def drain(self, deadline_s: float = DRAIN_DEADLINE_S) -> int:
        """Refuse newcomers, tell everybody to come back (1012), wait until they are gone.

        Returns:
            How many were still open when the deadline passed; the caller cuts them.
        """
        self._is_draining = True
        for handshake in self._handshakes:
            handshake.cancel()
        for connection in list(self._open):
            connection.drain()
        if self._open:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._all_closed.wait()
            except TimeoutError:
                _log.warning("drain_deadline_passed", connections=len(self._open))
        return len(self._open)
