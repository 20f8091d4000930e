"""`heliograph serve`: a production server on a database and keys that the environment names."""

import os
from typing import Annotated

import typer
import uvloop

from heliograph.cli.composition import PartsOptions, ServerOptions, run_server
from heliograph.cli.stop_request import run_until_stopped
from heliograph.cli.terminal import Terminal
from heliograph.config import Bounds, Settings, unknown_variables
from heliograph.server.logging import configure_logging
from heliograph.server.uvicorn_server import BoundAddress, ListenSettings, StopRequest


def register(app: typer.Typer) -> None:
    """Add the command ``serve`` to the program."""
    app.command("serve")(serve_command)


def serve_command(
    host: Annotated[
        str | None, typer.Option(help="Interface to listen on; default HELIOGRAPH_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="TCP port; default HELIOGRAPH_PORT.")
    ] = None,
    migrates: Annotated[
        bool, typer.Option("--migrate", help="Run pending migrations first.")
    ] = False,
) -> None:
    """Serve a database in production; every setting comes from the environment.

    Needed: DATABASE_URL, HELIOGRAPH_JWT_SECRET (or keys, see the reference) and
    HELIOGRAPH_ALLOWED_ORIGINS. Whatever is missing or wrong is named in one message. SIGTERM,
    SIGHUP and Ctrl-C tell the clients to connect elsewhere, then end the server.
    """
    terminal = Terminal()
    for name in unknown_variables(os.environ, [Settings, Bounds]):
        terminal.warn(f"{name}: no such setting; see docs/reference/config.md")
    settings = Settings.for_serve(os.environ)
    configure_logging(settings.log_format, level=settings.log_level.upper())

    def ready(address: BoundAddress) -> None:
        terminal.note(f"serving on {address.url}")

    async def run(stop: StopRequest) -> None:
        options = ServerOptions(
            listen=ListenSettings(
                host=settings.host if host is None else host,
                port=settings.port if port is None else port,
            ),
            parts=PartsOptions(may_migrate=migrates, allows_local_origins=False),
            on_ready=ready,
            stop=stop,
        )
        await run_server(settings, options)

    raise typer.Exit(uvloop.run(run_until_stopped(run)))
