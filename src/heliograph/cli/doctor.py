"""`heliograph doctor`: what is wrong with a set-up, and what to do about it.

Reads the environment of `heliograph serve` and goes on as far as it can when variables are missing
or nothing answers. Ends with 0 if nothing is wrong (warnings are allowed), with 1 if a check
failed. Changes nothing, and prints no secret.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from heliograph import limits
from heliograph.cli.diagnosis.check import Check, CheckStatus
from heliograph.cli.diagnosis.report import Question, diagnose, is_well
from heliograph.cli.diagnosis.secrets_of import Secrets, collect_secrets
from heliograph.cli.diagnosis.server_visit import is_server_url
from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.terminal import Terminal
from heliograph.server.logging import configure_logging
from heliograph.server.system_clock import SystemClock

_MARKS: Final = {
    CheckStatus.OK: "ok  ",
    CheckStatus.WARN: "warn",
    CheckStatus.FAIL: "FAIL",
    CheckStatus.SKIP: "skip",
}

_STANDARD_INPUT: Final = "-"

#: Under the mark and the name's first letter.
_INDENT: Final = " " * 6


def register(app: typer.Typer) -> None:
    """Add the command ``doctor`` to the program."""
    app.command("doctor")(doctor)


def doctor(
    is_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    token: Annotated[
        str | None,
        typer.Option(help="A token or API key: say why the server refuses it; - reads it."),
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="A page's origin: say whether it may connect.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="A running server; default HELIOGRAPH_HOST and HELIOGRAPH_PORT."),
    ] = None,
) -> None:
    """Check settings, keys, database, tables, policies, clocks and server; say what to do."""
    if url is not None and not is_server_url(url):
        message = "expected http://host:port or https://host"
        raise typer.BadParameter(message, param_hint="--url")
    if token == _STANDARD_INPUT:
        # Other people of the machine see arguments; standard input they do not.
        token = sys.stdin.read(limits.DOCTOR_TOKEN_CHARACTERS_MAX).strip()
    # What libraries and our own parts log is in the report already.
    configure_logging("console", level="CRITICAL")
    question = Question(os.environ, token, origin, url)
    checks = asyncio.run(diagnose(question, SystemClock()))
    secrets = collect_secrets(os.environ, token)
    terminal = Terminal()
    if is_json:
        terminal.write_json(as_document(checks, secrets))
    else:
        terminal.write(as_text(checks, secrets))
    raise typer.Exit(ExitCode.DONE if is_well(checks) else ExitCode.FAILED)


def as_document(checks: Sequence[Check], secrets: Secrets) -> dict[str, object]:
    """Return what ``--json`` prints: ``ok`` and one object for each check."""
    return {
        "ok": is_well(checks),
        "checks": [
            {
                "name": check.name.value,
                "status": check.status.value,
                "subject": secrets.hide(check.subject) or None,
                "detail": secrets.hide(check.detail),
                "problem": None if check.problem is None else secrets.hide(check.problem),
                "remedy": secrets.hide(check.remedy) or None,
                "page": check.name.page,
            }
            for check in checks
        ],
    }


def as_text(checks: Sequence[Check], secrets: Secrets) -> str:
    """Return the report for people: a line for each check, and below it what to do."""
    lines: list[str] = []
    for check in checks:
        lines.append(f"{_MARKS[check.status]}  {check.name}: {secrets.hide(check.detail)}")
        if check.remedy:
            lines.append(f"{_INDENT}{secrets.hide(check.remedy)}")
        if check.problem is not None:
            lines.append(f"{_INDENT}see {check.name.page}")
    return "\n".join([*lines, "", _summary(checks)])


def _summary(checks: Sequence[Check]) -> str:
    counts = {
        status: sum(1 for check in checks if check.status is status) for status in CheckStatus
    }
    return (
        f"{counts[CheckStatus.FAIL]} failed, {counts[CheckStatus.WARN]} warnings,"
        f" {counts[CheckStatus.OK]} ok, {counts[CheckStatus.SKIP]} not looked at"
    )
