"""Runs the server: uvicorn for HTTP, picows for WebSockets, one port, no signals.

The order of an end: stop accepting; tell every socket to come back (1012) and flush; let HTTP
requests finish; return. The process decides about its exit code: uvicorn alone would end it by the
signal.
"""

import asyncio
import functools
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import structlog
import uvicorn

from heliograph.errors import ConfigurationError
from heliograph.limits import ACCEPT_BACKLOG_MAX, DRAIN_DEADLINE_S
from heliograph.server.app import ServerParts, build_app, build_registry
from heliograph.server.picows_websocket import PicowsGate
from heliograph.server.supervision import Supervisor
from heliograph.server.uvicorn_http import BoundedHttpProtocol

_log = structlog.get_logger("heliograph.server")


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where to listen.

    Attributes:
        host: Name or address; only this machine by default.
        port: 0 takes a free one.
        drain_deadline_s: Seconds for the sockets to go when the server stops.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    drain_deadline_s: float = DRAIN_DEADLINE_S


@dataclass(frozen=True, slots=True)
class BoundAddress:
    """Where the server listens.

    Attributes:
        host: As asked for.
        port: The real one.
    """

    host: str
    port: int

    @property
    def url(self) -> str:
        """``http://host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class StopRequest:
    """Asks a running server to stop; remembers why."""

    def __init__(self) -> None:
        """Begin without a request."""
        self._event = asyncio.Event()
        self.signal_number: int | None = None
        #: Whether somebody waits for it, or has: a server that still starts does not.
        self.is_awaited = False
        self._cut: Callable[[], None] | None = None

    def request(self, signal_number: int | None = None) -> None:
        """Ask; asking a second time means: at once."""
        if self._event.is_set():
            if self._cut is not None:
                self._cut()
            return
        self.signal_number = signal_number
        self._event.set()

    def on_second(self, cut: Callable[[], None]) -> None:
        """Say what a second request does."""
        self._cut = cut

    async def wait_requested(self) -> None:
        """Wait until somebody asks."""
        self.is_awaited = True
        await self._event.wait()


class _Uvicorn(uvicorn.Server):
    """uvicorn that leaves signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._on_started()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave signals to whoever runs us."""

    def stop_accepting(self) -> None:
        """Close the listening sockets."""
        for server in self.servers:
            server.close()


async def serve(
    parts: ServerParts,
    listen: ListenSettings,
    *,
    on_ready: Callable[[BoundAddress], None],
    stop: StopRequest,
) -> int | None:
    """Serve until asked to stop, then drain.

    Args:
        parts: What the server is made of.
        listen: Where.
        on_ready: Called once, when connections are accepted.
        stop: Asks; asking a second time cuts short. Signals are the caller's (`cli.stop_request`).

    Returns:
        The signal that asked, or None: the caller chooses the exit code (0 after SIGTERM).

    Raises:
        ConfigurationError: If the address can not be listened on.
    """
    bound = bind_socket(listen)
    address = BoundAddress(listen.host, bound.getsockname()[1])
    registry = build_registry(parts)
    async with asyncio.TaskGroup() as group:
        gate = functools.partial(_make_gate, registry, Supervisor(group), parts.message_bytes_max)
        config = uvicorn.Config(
            build_app(parts, registry),
            http=BoundedHttpProtocol,
            ws=cast("Any", gate),
            backlog=ACCEPT_BACKLOG_MAX,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(listen.drain_deadline_s)),
        )
        started = asyncio.Event()
        server = _Uvicorn(config, started.set)
        running = group.create_task(server.serve(sockets=[bound]))
        await started.wait()
        on_ready(address)
        await stop.wait_requested()
        _log.info("stopping", connections=registry.count(), signal=stop.signal_number)
        stop.on_second(registry.cut)
        server.stop_accepting()
        left = await registry.drain(listen.drain_deadline_s)
        registry.cut()
        server.should_exit = True
        await running
    _log.info("stopped", cut_connections=left)
    return stop.signal_number


def bind_socket(listen: ListenSettings) -> socket.socket:
    """Return a bound socket, not yet listening.

    Raises:
        ConfigurationError: If the name is unknown, or the address is taken or not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        message = f"can not listen on {listen.host}: {error.strerror}"
        raise ConfigurationError(message) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        message = f"can not listen on {listen.host} port {listen.port}: {error.strerror}"
        raise ConfigurationError(message) from error
    bound.settimeout(0)
    return bound


def _make_gate(
    registry: Any, supervisor: Supervisor, message_bytes_max: int, **_uvicorn: object
) -> PicowsGate:
    """Make what uvicorn hands an upgrade to; its own arguments are not needed."""
    return PicowsGate(registry=registry, supervisor=supervisor, message_bytes_max=message_bytes_max)
