"""Exit codes: what ends a command decides its code, and no error shows a traceback."""

import sys
from importlib.metadata import version

import pytest
import typer

from heliograph.cli.exit_codes import ExitCode
from heliograph.cli.main import application, run
from heliograph.errors import ConfigurationError, UnavailableError


def exit_code(monkeypatch, app, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["heliograph", *arguments])
    with pytest.raises(SystemExit) as raised:
        run(app)
    return int(raised.value.code or 0)


def app_that_raises(error: BaseException | None) -> typer.Typer:
    app = application()

    @app.command()
    def trial() -> None:
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, ExitCode.DONE),
        (ConfigurationError("A: missing"), ExitCode.WRONG_USAGE),
        (UnavailableError("the database is away"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ExceptionGroup("tasks", [UnavailableError("away")]), ExitCode.FAILED),
        (
            ExceptionGroup(
                "tasks",
                [UnavailableError("away"), ExceptionGroup("more", [ConfigurationError("A")])],
            ),
            ExitCode.WRONG_USAGE,
        ),
    ],
)
def test_the_error_decides_the_code(monkeypatch, capsys, error, code):
    assert exit_code(monkeypatch, app_that_raises(error), "trial") == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_an_error_says_what_to_do(monkeypatch, capsys):
    exit_code(monkeypatch, app_that_raises(UnavailableError("the database is away")), "trial")
    shown = capsys.readouterr().err
    assert "error: the database is away" in shown
    assert UnavailableError.remedy in shown


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["trial", "x"]])
def test_wrong_usage_exits_with_2(monkeypatch, arguments):
    assert exit_code(monkeypatch, app_that_raises(None), *arguments) == ExitCode.WRONG_USAGE


def test_the_version_is_printed(monkeypatch, capsys):
    assert exit_code(monkeypatch, application(), "--version") == ExitCode.DONE
    assert capsys.readouterr().out == f"heliograph {version('heliograph')}\n"


def test_our_own_bugs_are_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["heliograph", "trial"])
    with pytest.raises(ZeroDivisionError):
        run(app_that_raises(ZeroDivisionError()))
