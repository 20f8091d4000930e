"""`heliograph publish TABLE`: stream a table's changes from now on.

Ends with 0 if the table is in the publication, also if it was before; with 2 if it can not be
served as it is (the message says why), and with 1 if its lock was not to be had.
"""

import asyncio
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.database import administration
from heliograph.cli.terminal import Terminal
from heliograph.config import Settings
from heliograph.postgres.migrate import AttachSetting, MigrationMode, plan
from heliograph.postgres.publication import (
    IdentityChoice,
    PublishOptions,
    PublishReport,
    publish_table,
)


def register(app: typer.Typer) -> None:
    """Add the command ``publish`` to the program."""
    app.command("publish")(publish)


def publish(
    table: Annotated[str, typer.Argument(help="Table, or schema.table.")],
    identity: Annotated[
        IdentityChoice,
        typer.Option(help="Replica identity: full old rows, the primary key, or as it is."),
    ] = IdentityChoice.FULL,
    publication: Annotated[
        str | None,
        typer.Option(help="Publication; default HELIOGRAPH_PUBLICATION, then the server's."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Data folder of `heliograph dev`, where DATABASE_URL is not set.")
    ] = Path("heliograph-data"),
) -> None:
    """Add a table to the publication, waiting for open writers so that no row is lost."""
    settings = Settings.from_environ(os.environ)
    report = asyncio.run(_publish(table, identity, publication, settings, data_dir))
    _write(report, Terminal())


async def _publish(
    table: str,
    identity: IdentityChoice,
    publication: str | None,
    settings: Settings,
    data_dir: Path,
) -> PublishReport:
    async with administration(settings, data_dir) as connection:
        if publication is None:
            planned = await plan(connection, AttachSetting(settings.attach))
            is_attached = planned.mode is MigrationMode.ATTACH
            publication = settings.publication_name(is_attached=is_attached)
        options = PublishOptions(
            table,
            jitter=secrets.SystemRandom().random,
            publication=publication,
            identity=identity,
        )
        return await publish_table(connection, options)


def _write(report: PublishReport, terminal: Terminal) -> None:
    done = "was already in" if report.was_published else "is now in"
    terminal.write(
        f"{report.table} {done} publication {report.publication}, replica identity "
        f"{report.identity.name}"
    )
    for note in report.notes:
        terminal.warn(note)
