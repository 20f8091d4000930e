"""The program ``heliograph``: composition root of the command line.

Each command is a module beside this one with ``register(app)``; `_COMMANDS` lists them. Errors of
Heliograph end a command with a message on standard error and an exit code, never with a traceback;
anything else is a bug of ours and shows one.
"""

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Final

import typer

from heliograph.cli import dev, doctor, keys, migrate, publish, serve, tail
from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.terminal import Terminal
from heliograph.errors import ConfigurationError, HeliographError

#: `register` of each command's module, in the order of ``heliograph --help``.
_COMMANDS: Final[tuple[Callable[[typer.Typer], None], ...]] = (
    dev.register,
    serve.register,
    migrate.register,
    publish.register,
    keys.register,
    tail.register,
    doctor.register,
)


def application() -> typer.Typer:
    """Build the command line with all its commands."""
    app = typer.Typer(
        name="heliograph",
        help="Real-time data synchronization for PostgreSQL.",
        no_args_is_help=True,
        add_completion=False,
        # Typer's own tracebacks print local variables, among them passwords and keys.
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for register in _COMMANDS:
        register(app)
    return app


def main() -> None:
    """Run the command of ``sys.argv`` and exit with its code (see `ExitCode`)."""
    run(application())


def run(app: typer.Typer) -> None:
    """Run `app` on ``sys.argv``; exit with the code of what happened.

    Wrong usage (2) and Ctrl-C (130) are Typer's work already.
    """
    failures: list[HeliographError] = []
    try:
        app()
    except* HeliographError as group:
        failures.extend(_leaves(group))
    if failures:
        sys.exit(report(failures, Terminal()))


def report(failures: list[HeliographError], terminal: Terminal) -> ExitCode:
    """Write why a command failed; return the code to exit with."""
    for text in dict.fromkeys(_message(failure) for failure in failures):
        terminal.fail(text)
    if any(isinstance(failure, ConfigurationError) for failure in failures):
        return ExitCode.WRONG_USAGE
    return ExitCode.FAILED


def _message(failure: HeliographError) -> str:
    # A configuration error lists what to do line by line; the others get their class's remedy.
    if isinstance(failure, ConfigurationError):
        return str(failure)
    return f"{failure}\n{failure.remedy}"


def _leaves(group: BaseExceptionGroup[HeliographError]) -> Iterator[HeliographError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        Terminal().write(f"heliograph {importlib.metadata.version('heliograph')}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command; `_print_version` has acted on the only one."""
