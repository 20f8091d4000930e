"""The ASGI application: routes of the surfaces, and what they share.

`build_app` gives an application that any ASGI server runs and any Starlette or FastAPI application
can mount; `uvicorn_server.serve` runs it with the faster WebSocket adapter. Building does no I/O.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from heliograph.core.channels.server_connection import ConnectionLimits
from heliograph.core.wire.change_frame import SharedChangeFrames
from heliograph.limits import CONNECTIONS_MAX, MESSAGE_BYTES_MAX
from heliograph.ports.authenticator import Authenticator
from heliograph.ports.change_subscriptions import ChangeSubscriptions
from heliograph.ports.clock import Clock
from heliograph.server.asgi_websocket import AsgiWebSocket
from heliograph.server.connection import ConnectionParts
from heliograph.server.connection_registry import ConnectionRegistry
from heliograph.server.health import ReadinessPart, health_routes
from heliograph.server.metrics import CONTENT_TYPE, Metrics
from heliograph.server.origins import OriginPolicy
from heliograph.server.outbound import OutboundLimits, OutboundParts, TickFlush
from heliograph.server.slow_consumers import SlowConsumerWatch
from heliograph.server.websocket_handshake import (
    WEBSOCKET_PATHS,
    HandshakePolicy,
    HandshakeRefusal,
)


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What a server is made of; the composition root fills it in.

    Attributes:
        subscriptions: Makes change subscriptions (`server.delivery`).
        authenticator: Verifies keys and tokens (`server.keys`).
        clock: Tells the time.
        origins: Which web pages may open sockets.
        metrics: Shared with whoever else counts.
        readiness: What ``/ready`` asks, besides whether the server is draining.
        routes: Further surfaces, matched after the ones here.
        connection_limits: What one client may send.
        outbound_limits: What may wait for one client.
        connections_max: Open sockets.
        message_bytes_max: Bytes of one message of a client.
        before_flush: Called before connections are flushed; may queue more for them.
    """

    subscriptions: ChangeSubscriptions
    authenticator: Authenticator
    clock: Clock
    origins: OriginPolicy
    metrics: Metrics = field(default_factory=Metrics)
    readiness: Sequence[ReadinessPart] = ()
    routes: Sequence[BaseRoute] = ()
    connection_limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    outbound_limits: OutboundLimits = field(default_factory=OutboundLimits)
    connections_max: int = CONNECTIONS_MAX
    message_bytes_max: int = MESSAGE_BYTES_MAX
    before_flush: Callable[[], None] | None = None


def build_registry(parts: ServerParts) -> ConnectionRegistry:
    """Make the registry of all WebSockets; one for each process."""
    frames, metrics = SharedChangeFrames(), parts.metrics

    def end_turn() -> None:
        frames.release()
        metrics.commit_to_write.end_turn()

    return ConnectionRegistry(
        parts=ConnectionParts(
            subscriptions=parts.subscriptions,
            authenticator=parts.authenticator,
            clock=parts.clock,
            metrics=metrics,
            limits=parts.connection_limits,
            outbound=OutboundParts(
                ticks=TickFlush(end_turn, before=parts.before_flush),
                watch=SlowConsumerWatch(
                    write_deadline_s=parts.outbound_limits.write_deadline_s,
                    bytes_total_max=parts.outbound_limits.bytes_total_max,
                ),
                traffic=metrics.traffic,
                commit_to_write=metrics.commit_to_write,
                limits=parts.outbound_limits,
            ),
            frames=frames,
        ),
        policy=HandshakePolicy(parts.authenticator, parts.origins),
        connections_max=parts.connections_max,
    )


def build_app(parts: ServerParts, registry: ConnectionRegistry | None = None) -> Starlette:
    """Make the application.

    Args:
        parts: What it is made of.
        registry: Of `build_registry`; made here if absent. It is kept as ``app.state.connections``:
            an application that mounts this one calls ``await app.state.connections.drain()`` when
            it shuts down.
    """
    connections = build_registry(parts) if registry is None else registry
    sockets = AsgiWebSocket(connections, message_bytes_max=parts.message_bytes_max)

    async def metrics(_request: Request) -> Response:
        return Response(parts.metrics.render(), media_type=CONTENT_TYPE)

    async def upgrade_needed(_request: Request) -> Response:
        refusal = HandshakeRefusal(426, "This address speaks WebSocket only")
        return Response(
            refusal.body,
            status_code=refusal.status,
            media_type=refusal.content_type,
            headers={"upgrade": "websocket"},
        )

    app = Starlette(
        routes=[
            *(WebSocketRoute(path, sockets) for path in WEBSOCKET_PATHS),
            *(Route(path, upgrade_needed) for path in WEBSOCKET_PATHS),
            *health_routes((*parts.readiness, ReadinessPart("server", connections.problem))),
            Route("/metrics", metrics),
            *parts.routes,
        ]
    )
    app.state.connections = connections
    return app
