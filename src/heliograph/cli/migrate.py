"""`heliograph migrate`: bring a database to this version's state, or say what that would mean.

Ends with 0 if a server can work with the database, with 1 if something essential is missing that
the connected role may not do, and with 2 if settings or database must be changed first.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.database import administration
from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.terminal import Terminal
from heliograph.config import Settings
from heliograph.postgres.migrate import (
    AttachSetting,
    MigrateOptions,
    MigrationMode,
    MigrationPlan,
    MigrationReport,
    MissingRight,
    migrate,
    plan,
    print_sql,
)


@dataclass(frozen=True, slots=True)
class MigrateCommand:
    """The command line.

    Attributes:
        attach: Whether the database is an existing Supabase project.
        data_dir: Data folder of ``heliograph dev``, for its database.
        shows_status: Only show which migrations were run.
        is_dry_run: Only show which would be run.
    """

    attach: AttachSetting
    data_dir: Path
    shows_status: bool
    is_dry_run: bool


def register(app: typer.Typer) -> None:
    """Add the command ``migrate`` to the program."""
    app.command("migrate")(migrate_command)


def migrate_command(
    shows_status: Annotated[
        bool, typer.Option("--status", help="Show which migrations were run; change nothing.")
    ] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which would be run; change nothing.")
    ] = False,
    prints_sql: Annotated[
        bool, typer.Option("--print-sql", help="Print the SQL; no database is needed.")
    ] = False,
    attach: Annotated[
        AttachSetting | None,
        typer.Option(help="Whether it is an existing Supabase project; default HELIOGRAPH_ATTACH."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Data folder of `heliograph dev`, where DATABASE_URL is not set.")
    ] = Path("heliograph-data"),
) -> None:
    """Prepare the database: roles, schemas, publications; safe to repeat."""
    if shows_status + is_dry_run + prints_sql > 1:
        message = "--status, --dry-run and --print-sql exclude each other"
        raise typer.BadParameter(message)
    terminal = Terminal()
    settings = Settings.from_environ(os.environ)
    wanted = attach or AttachSetting(settings.attach)
    if prints_sql:
        is_attached = wanted is AttachSetting.ALWAYS
        terminal.write(print_sql(MigrationMode.ATTACH if is_attached else MigrationMode.FRESH))
        return
    command = MigrateCommand(wanted, data_dir, shows_status, is_dry_run)
    raise typer.Exit(asyncio.run(_run(command, settings, terminal)))


async def _run(command: MigrateCommand, settings: Settings, terminal: Terminal) -> ExitCode:
    async with administration(settings, command.data_dir) as connection:
        if command.shows_status or command.is_dry_run:
            planned = await plan(connection, command.attach)
            write = _write_status if command.shows_status else _write_pending
            write(planned, terminal)
            missing = planned.missing
        else:
            report = await migrate(connection, MigrateOptions(attach=command.attach))
            _write_report(report, terminal)
            missing = report.missing
    _write_missing(missing, terminal)
    is_usable = not any(item.is_essential for item in missing)
    return ExitCode.DONE if is_usable else ExitCode.FAILED


def _write_status(planned: MigrationPlan, terminal: Terminal) -> None:
    terminal.write(f"mode {planned.mode}")
    for step in planned.steps:
        when = f"{step.applied_at:%Y-%m-%d %H:%M:%S%z}" if step.applied_at is not None else "-"
        terminal.write(f"{step.migration.label:<32} {step.state:<8} {when}")


def _write_pending(planned: MigrationPlan, terminal: Terminal) -> None:
    if not planned.pending:
        terminal.write("nothing to do")
    for migration in planned.pending:
        terminal.write(f"would run {migration.label}: {migration.title}")


def _write_report(report: MigrationReport, terminal: Terminal) -> None:
    if not report.applied:
        terminal.write(f"nothing to do: {report.applied_before} migrations were run before")
    for label in report.applied:
        terminal.write(f"ran {label}")
    for note in report.notes:
        terminal.note(note)


def _write_missing(missing: tuple[MissingRight, ...], terminal: Terminal) -> None:
    for item in missing:
        text = f"missing: {item.what} ({item.reason}): {item.lost}\n  {item.remedy}"
        if item.is_essential:
            terminal.fail(text)
        else:
            terminal.warn(text)
