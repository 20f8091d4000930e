"""`heliograph tail TABLE`: live changes in the terminal, through the running server.

Changes go to standard output, sentences about the connection to standard error. Ends when it is
interrupted (130) or told to stop (0), when nobody reads its output any more (0), when the server
refuses or is not there (1), and on wrong usage or missing settings (2).
"""

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Never

import typer
from rich.console import Console
from rich.text import Text

from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.stop_request import stop_on_signals
from heliograph.cli.tail_connection import TailConnection, TailSink, endpoint_of
from heliograph.cli.tail_conversation import TailRequest
from heliograph.cli.tail_keys import read_secrets, service_keys, user_keys
from heliograph.cli.tail_rendering import escape_json, escape_unprintable, render_change
from heliograph.cli.terminal import Terminal
from heliograph.config import Settings
from heliograph.server.system_clock import SystemClock

#: `schema.table` or `table`, each plain or in double quotes, as in SQL.
_TABLE: Final = re.compile(r'(?:("(?:[^"]|"")+"|[^".]+)\.)?("(?:[^"]|"")+"|[^".]+)')


class TailedEvent(StrEnum):
    """Kinds of change that can be asked for."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    ALL = "*"


@dataclass(frozen=True, slots=True)
class TailOptions:
    """The command line.

    Attributes:
        request: What is asked for.
        person: E-mail address or user id; None for the service role.
        url: The server's base URL; None for the one of the settings.
        data_dir: Data folder of ``heliograph dev``.
        is_json: Whether to print changes as JSON.
    """

    request: TailRequest
    person: str | None
    url: str | None
    data_dir: Path
    is_json: bool


class LineSink:
    """Shows changes as lines, in colour if the output is a terminal."""

    def __init__(self, terminal: Terminal, *, is_many_tables: bool) -> None:
        """Take the streams; `is_many_tables`: whether lines must name their table."""
        self._terminal = terminal
        self._is_many_tables = is_many_tables

    def show_change(self, content: bytes) -> None:
        """Write one change as one line."""
        segments = render_change(content, zone=None, is_many_tables=self._is_many_tables)
        output = self._terminal.output
        if output.is_terminal:
            output.print(Text.assemble(*[(segment.text, segment.style) for segment in segments]))
        else:
            _write_line(output, "".join([segment.text for segment in segments]))

    def show_notice(self, text: str) -> None:
        """Write a sentence about the connection."""
        self._terminal.note(f"-- {escape_unprintable(text)}")


class JsonSink:
    """Shows changes as JSON lines: the ``data`` object of the protocol, all of it."""

    def __init__(self, terminal: Terminal) -> None:
        """Take the streams."""
        self._terminal = terminal

    def show_change(self, content: bytes) -> None:
        """Write one change as one line of JSON."""
        _write_line(self._terminal.output, escape_json(content))

    def show_notice(self, text: str) -> None:
        """Write a sentence about the connection."""
        self._terminal.note(f"-- {escape_unprintable(text)}")


def register(app: typer.Typer) -> None:
    """Add the command ``tail`` to the program."""
    app.command("tail")(tail)


def tail(  # noqa: PLR0913, PLR0917 - typer wants one parameter per option
    table: Annotated[
        str,
        typer.Argument(
            help="Table, or schema.table; * for every published one, schema.* for one schema's."
        ),
    ],
    filter_text: Annotated[
        str | None,
        typer.Option("--filter", help="Only rows like this, for example status=eq.pending."),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="USER",
            help="See what this user sees: e-mail address or id. Without it: every row.",
        ),
    ] = None,
    event: Annotated[
        TailedEvent, typer.Option(help="Only this kind of change.", case_sensitive=False)
    ] = TailedEvent.ALL,
    select: Annotated[
        str | None, typer.Option(help="Only these columns, separated by commas.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The server's address; default SUPABASE_URL, then this machine's."),
    ] = None,
    is_json: Annotated[
        bool, typer.Option("--json", help="Print each change as one line of JSON.")
    ] = False,
    data_dir: Annotated[
        Path, typer.Option(help="Data folder of `heliograph dev`, for its keys.")
    ] = Path("heliograph-data"),
) -> None:
    """Print changes of a table as they are committed."""
    schema, name = _parse_table(table)
    request = TailRequest(schema, name, event.value, filter_text, _parse_columns(select))
    raise typer.Exit(run_tail(TailOptions(request, person, url, data_dir, is_json)))


def run_tail(options: TailOptions) -> ExitCode:
    """Follow until stopped; return how it ended.

    Raises:
        BaseExceptionGroup: Of the `HeliographError` that ended it.
    """
    code = ExitCode.DONE
    try:
        code = asyncio.run(_follow_until_stopped(options))
    except* BrokenPipeError:
        # `heliograph tail … | head`: whoever read has seen enough. What is still buffered goes
        # nowhere, or Python would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


async def _follow_until_stopped(options: TailOptions) -> ExitCode:
    with stop_on_signals() as stop:
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(_follow(options))
                await stop.wait()
                following.cancel()
        except asyncio.CancelledError:
            # A second signal, while the connection was being closed.
            if stop.signal is None:
                raise
        return stop.exit_code


async def _follow(options: TailOptions) -> Never:
    settings = Settings.from_environ(os.environ)
    local_url = f"http://{settings.host}:{settings.port}"
    clock = SystemClock()
    secrets = read_secrets(settings, options.data_dir)
    keys = (
        service_keys(secrets, clock)
        if options.person is None
        else await user_keys(options.person, secrets, clock)
    )
    connection = TailConnection(
        endpoint=endpoint_of(options.url or settings.public_url or local_url),
        request=options.request,
        keys=keys,
        sink=_sink_of(options),
        clock=clock,
    )
    await connection.run()


def _sink_of(options: TailOptions) -> TailSink:
    terminal = Terminal()
    if options.is_json:
        return JsonSink(terminal)
    is_many_tables = "*" in {options.request.schema, options.request.table}
    return LineSink(terminal, is_many_tables=is_many_tables)


def _parse_table(text: str) -> tuple[str, str]:
    found = _TABLE.fullmatch(text)
    if found is None:
        message = 'expected table or schema.table; names with dots in double quotes: "a.b"'
        raise typer.BadParameter(message, param_hint="TABLE")
    if text == "*":
        return "*", "*"
    schema, table = found.groups(default="public")
    return _unquoted(schema), _unquoted(table)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _parse_columns(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    columns = tuple([name.strip() for name in text.split(",")])
    if not all(columns):
        message = "expected column names separated by commas"
        raise typer.BadParameter(message, param_hint="--select")
    return columns


def _write_line(console: Console, line: str) -> None:
    """Write past `rich`, which would end the program with an error when a pipe breaks."""
    console.file.write(f"{line}\n")
    console.file.flush()
