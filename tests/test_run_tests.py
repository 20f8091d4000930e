"""`scripts/run_tests.py` leaves out no test, and fails where it should."""

import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUITE = """
import heliograph.limits
import pytest

def test_good():
    pass

def test_bad():
    assert False

@pytest.mark.skip
def test_skipped():
    pass
"""
DEADLINE_S = 20


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module; what its processes measure and erase is not the coverage of this."""
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts" / "run_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "run_tests", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("COVERAGE_FILE", str(tmp_path / "coverage"))
    monkeypatch.setattr(sys, "argv", ["run_tests.py"])
    return module


def ended(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, *outcomes: tuple[int, str]) -> int:
    """Return the exit code of a run whose parts ended with these codes and last lines."""
    ended = [runner.Outcome(code, [line] if line else []) for code, line in outcomes]
    monkeypatch.setattr(runner, "run_parts", lambda: ended)
    return runner.main()


def chosen(arguments: Sequence[str]) -> set[Path]:
    """Return the test files that pytest runs for some arguments."""
    left_out = {arguments[at + 1] for at, word in enumerate(arguments) if word == "--ignore"}
    named = {word for word in arguments if word != "--ignore"} - left_out
    return files_in(*(named or {"tests"})) - files_in(*left_out)


def files_in(*paths: str) -> set[Path]:
    """Return the test files at or below some paths, which must exist."""
    roots = [ROOT / path for path in paths]
    assert all(root.exists() for root in roots)
    files = (ROOT / "tests").rglob("test_*.py")
    return {file for file in files if any(file.is_relative_to(root) for root in roots)}


def test_every_test_is_in_one_part(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run: list[Path] = []

    def run_pytest(arguments: Sequence[str], show: object, *, is_measured: bool) -> object:
        run.extend(chosen(arguments))
        return runner.Outcome(0, [])

    monkeypatch.setattr(runner, "run_pytest", run_pytest)
    runner.run_parts()
    assert sorted(run) == sorted((ROOT / "tests").rglob("test_*.py"))
    assert capsys.readouterr().out.count(": took ") == len(runner.PARTS)


def test_who_is_free_takes_the_next_part(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_, last = [part.arguments() for part in runner.PARTS]
    is_last_begun = threading.Event()

    def run_pytest(arguments: Sequence[str], show: object, *, is_measured: bool) -> object:
        if arguments == last:
            is_last_begun.set()
        if arguments == first:
            assert is_last_begun.wait(DEADLINE_S)
        return runner.Outcome(0, arguments)

    monkeypatch.setattr(runner, "run_pytest", run_pytest)
    outcomes = runner.run_parts()
    assert [outcome.closing for outcome in outcomes] == [part.arguments() for part in runner.PARTS]


def test_core_is_measured_where_its_tests_are(runner: ModuleType) -> None:
    measured = [part.arguments() for part in runner.PARTS if part.is_measured]
    assert files_in("tests/unit/core") <= set().union(*map(chosen, measured))


@pytest.mark.parametrize("is_measured", [True, False])
def test_pytests_last_lines_are_kept(runner: ModuleType, tmp_path: Path, is_measured: bool) -> None:
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    lines: list[str] = []
    options = ("-p", "no:cacheprovider", "--color=yes", "-c", str(ROOT / "pyproject.toml"))
    outcome = runner.run_pytest([*options, str(suite)], lines.append, is_measured=is_measured)
    assert outcome.code == 1
    assert "short test summary info" in outcome.closing[0]
    assert "1 failed, " in runner._ESCAPE.sub("", outcome.closing[-1])
    assert runner.skipped_count(outcome.closing) == 1
    assert lines[-len(outcome.closing) :] == outcome.closing
    assert bool(list(tmp_path.glob("coverage.*"))) == is_measured


@pytest.mark.parametrize(
    ("outcomes", "is_covered", "ci", "code", "said"),
    [
        ([(0, "= 2 passed in 1.00s ="), (0, "= 3 passed in 1.00s =")], True, "1", 0, "3 passed"),
        ([(1, "= 1 failed in 1.00s ="), (0, "= 3 passed in 1.00s =")], True, "1", 1, "1 failed"),
        ([(0, "= 3 passed in 1.00s ="), (2, "= no tests in 1.00s =")], True, "1", 2, "no tests"),
        ([(0, "= 3 passed in 1.00s ="), (-9, "")], True, "1", -9, "without its summary"),
        ([(0, "= 3 passed in 1.00s ="), (0, "")], True, "1", 1, "without its summary"),
        ([(0, "= 3 passed in 1.00s =")], False, "1", 1, "core/ is not covered"),
        ([(0, "= 3 passed, 1 skipped in 1.00s =")], True, "1", 1, "1 tests were skipped"),
        ([(0, "= 3 passed, 1 skipped in 1.00s =")], True, "", 0, "1 skipped"),
    ],
)
def test_what_fails_fails_the_run_and_is_said_at_its_end(
    runner: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcomes: list[tuple[int, str]],
    is_covered: bool,
    ci: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(runner, "core_is_covered", lambda: is_covered)
    assert ended(runner, monkeypatch, *outcomes) == code
    assert said in capsys.readouterr().out
