"""Heliograph inside an application of yours: one process, one port.

For any ASGI application with a lifespan, Starlette and FastAPI among them::

    heliograph = MountedServer()                       # settings from the environment

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with heliograph.running():
            yield

    app = Starlette(routes=[…, Mount("/", heliograph)], lifespan=lifespan)

WebSockets are those of the application's ASGI server here, and so are its limits below ours. See
docs/howto/mount-in-an-application.md.
"""

import contextlib
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

try:
    from starlette.responses import JSONResponse
    from starlette.types import Receive, Scope, Send

    from heliograph.cli.composition import PartsOptions, running_parts
    from heliograph.config import Settings
    from heliograph.server.app import build_app
except ModuleNotFoundError as missing:
    # One of ours is in every install: that it is missing is a bug.
    if missing.name is None or missing.name.partition(".")[0] == "heliograph":
        raise
    # Not Starlette alone: an application that is to be mounted in has it already.
    _message = (
        f"heliograph.mounting needs the server ({missing.name} is missing):"
        " pip install 'heliograph[server]'"
    )
    raise ModuleNotFoundError(_message, name=missing.name) from missing

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["MountedServer"]


class MountedServer:
    """An ASGI application that serves while its `running` block lasts."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        may_migrate: bool = False,
        allows_local_origins: bool = False,
    ) -> None:
        """Remember how; nothing is connected yet.

        Args:
            settings: None: those of the environment, as for ``heliograph serve``.
            may_migrate: Whether pending migrations are run at the start.
            allows_local_origins: Whether pages of this machine may connect, for development.
        """
        self._settings = settings
        self._options = PartsOptions(
            may_migrate=may_migrate, allows_local_origins=allows_local_origins
        )
        self._app: Starlette | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Read the database and serve until the block ends; sockets still open are drained.

        Raises:
            ConfigurationError: If settings or database must be changed first.
            UnavailableError: If the database does not answer at the start.
        """
        settings = self._settings or Settings.for_serve(os.environ)
        async with running_parts(settings, self._options) as parts:
            app = build_app(parts)
            self._app = app
            try:
                yield
            finally:
                await app.state.connections.drain()
                app.state.connections.cut()
                self._app = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket; outside the block the answer is 503."""
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = JSONResponse({"error": "Heliograph is not running"}, status_code=503)
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1012})
