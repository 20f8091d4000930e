"""`heliograph dev`: everything on this machine with one command.

Without DATABASE_URL an embedded PostgreSQL runs in the data folder; the demo organization is loaded
and a simulator trades in it. With a DATABASE_URL of yours nothing is loaded unasked.
"""

import asyncio
import os
import random  # noqa: TID251 - the simulator's generator is made here
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from heliograph.apps.optics.demo import ALLOW_WITHOUT_RLS, DemoReport, load_demo
from heliograph.apps.optics.simulator import ShopSimulator
from heliograph.cli.composition import PartsOptions, ServerOptions, run_server
from heliograph.cli.keys import minted_key
from heliograph.cli.stop_request import run_until_stopped
from heliograph.cli.terminal import Terminal
from heliograph.config import Bounds, Settings, unknown_variables
from heliograph.postgres.bootstrap import prepare_database
from heliograph.postgres.development_database import open_development_database
from heliograph.postgres.embedded import EmbeddedOptions, EmbeddedPostgres, RunningPostgres
from heliograph.postgres.sql_session import open_sql_session
from heliograph.server.logging import configure_logging
from heliograph.server.system_clock import SystemClock
from heliograph.server.uvicorn_server import BoundAddress, ListenSettings, StopRequest

_log = structlog.get_logger("heliograph.dev")


@dataclass(frozen=True, slots=True)
class DevCommand:
    """The command line.

    Attributes:
        listen: Where.
        data_dir: Data folder of the embedded PostgreSQL.
        wants_demo: Whether the demo is loaded; None: unless DATABASE_URL is set.
        is_json: Whether one line of JSON says that the server is ready.
    """

    listen: ListenSettings
    data_dir: Path
    wants_demo: bool | None
    is_json: bool


def register(app: typer.Typer) -> None:
    """Add the command ``dev`` to the program."""
    app.command("dev")(dev_command)


def dev_command(
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="TCP port; 0: a free one.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Folder of database and secrets.")] = Path(
        "heliograph-data"
    ),
    demo: Annotated[
        bool | None,
        typer.Option(
            "--demo/--no-demo", help="Load the demo; default: unless DATABASE_URL is set."
        ),
    ] = None,
    is_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready; logs are JSON.")
    ] = False,
) -> None:
    """Run everything on this machine: PostgreSQL, server and demo."""
    command = DevCommand(ListenSettings(host=host, port=port), data_dir, demo, is_json)

    async def run(stop: StopRequest) -> None:
        await _run(command, os.environ, stop)

    raise typer.Exit(uvloop.run(run_until_stopped(run)))


async def _run(command: DevCommand, environ: Mapping[str, str], stop: StopRequest) -> None:
    terminal = Terminal()
    for name in unknown_variables(environ, [Settings, Bounds]):
        terminal.warn(f"{name}: no such setting; see docs/reference/config.md")
    async with open_development_database(
        environ, EmbeddedOptions(data_dir=command.data_dir)
    ) as database:
        settings = database.settings
        log_format = "json" if command.is_json else settings.log_format
        configure_logging(log_format, level=settings.log_level.upper())
        wants_demo = command.wants_demo
        if wants_demo is None:
            wants_demo = database.embedded is not None
        if wants_demo:
            names = (*settings.allow_without_rls, *ALLOW_WITHOUT_RLS)
            settings = replace(settings, allow_without_rls=names)
        report = await _load_demo(settings) if wants_demo else None

        def ready(address: BoundAddress) -> None:
            if command.is_json:
                terminal.write_json(_ready_line(settings, address))
            else:
                _print_welcome(terminal, settings, address, report)

        options = ServerOptions(
            listen=command.listen,
            parts=PartsOptions(
                may_migrate=report is None,
                allows_local_origins=settings.allowed_origins is None,
                state_dir=command.data_dir / "state",
            ),
            on_ready=ready,
            stop=stop,
        )
        async with _companions(database.embedded, settings, has_demo=wants_demo):
            await run_server(settings, options)


async def _load_demo(settings: Settings) -> DemoReport:
    await prepare_database(settings, may_migrate=True)
    url = settings.url_for_administration().reveal()
    async with open_sql_session(url, application_name="heliograph_demo") as session:
        return await load_demo(session)


@asynccontextmanager
async def _companions(
    embedded: EmbeddedPostgres | None, settings: Settings, *, has_demo: bool
) -> AsyncGenerator[None]:
    """Keep the embedded PostgreSQL running and the shop trading while the block lasts."""

    def restarted(running: RunningPostgres) -> None:
        _log.warning("postgres_restarted", pid=running.pid)

    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        if embedded is not None:
            tasks.append(group.create_task(embedded.keep_running(restarted), name="postgres"))
        if has_demo:
            url = settings.url_for_administration().reveal()
            simulator = ShopSimulator(
                lambda: open_sql_session(url, application_name="heliograph_simulator"),
                random=random.Random(),  # noqa: S311 - a shop needs no secrecy
                clock=SystemClock(),
            )
            tasks.append(group.create_task(simulator.run(), name="simulator"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def shown_keys(settings: Settings) -> dict[str, str]:
    """Return every key that a client of `dev` may need; `dev` is the one place that shows them.

    The empty string where there is none.
    """
    keys = {
        "anon_key": settings.anon_key or minted_key(settings, "anon"),
        "service_role_key": settings.service_role_key or minted_key(settings, "service_role"),
        "publishable_key": settings.publishable_key,
        "secret_key": settings.secret_key,
        "jwt_secret": settings.jwt_secret,
    }
    return {name: "" if key is None else key.reveal() for name, key in keys.items()}


def _ready_line(settings: Settings, address: BoundAddress) -> dict[str, object]:
    return {
        "url": address.url,
        **shown_keys(settings),
        "database_url": settings.url_for_administration().reveal(),
        "pid": os.getpid(),
    }


def _print_welcome(
    terminal: Terminal, settings: Settings, address: BoundAddress, report: DemoReport | None
) -> None:
    keys = shown_keys(settings)
    terminal.write(f"Heliograph is ready on {address.url}")
    terminal.write(f"  database          {settings.url_for_administration().reveal()}")
    for name in ("publishable_key", "anon_key", "service_role_key"):
        if keys[name]:
            terminal.write(f"  {name.replace('_', ' '):<17} {keys[name]}")
    if report is not None:
        terminal.write("Demo accounts (heliograph tail orders --as E-MAIL):")
        for account in report.accounts:
            place = ", ".join(account.branches) or "all"
            organization = account.organization or "operator"
            terminal.write(f"  {account.email:<36} {account.role:<12} {organization}: {place}")
    terminal.write("Stop with Ctrl-C.")
