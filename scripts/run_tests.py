"""Run the whole suite once, with coverage, and hold the results against the gates.

Usage: ``python scripts/run_tests.py [PYTEST ARGUMENT …]``

1. pytest in random order, under coverage; with arguments in one process, without in two at a time.
2. Without arguments: every line and branch of ``core/`` was run; the rest is only reported.
3. With ``CI`` set: no test was skipped. A missing part of the machine is a failure there.

pytest's closing lines are printed again at the very end, so that whoever reads only the end of a
long log sees how many tests passed. The exit code is pytest's, or 1 if a gate failed.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.ci import is_ci

#: The files whose every branch must be run, as coverage patterns.
CORE: Final = "src/heliograph/core/*"

#: Tests that mostly wait for servers in processes of their own.
SERVED: Final = ("tests/interop", "tests/oracle", "tests/soak")

#: Where pytest's closing lines begin: the list of failures and reasons, or the last line itself.
CLOSING: Final = re.compile(r"^=+ (short test summary info|.*\bin \d+\.\d+s).*=+$")

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")
_SKIPPED: Final = re.compile(r"\b(\d+) skipped\b")


def run_pytest(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """Run pytest, show its output as it comes, and keep the closing lines.

    Returns:
        pytest's exit code, and the lines from the short summary (if any) to the last one.
    """
    closing: list[str] = []
    with _pytest(arguments, subprocess.PIPE) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            _show(line, closing)
    return pytest.returncode, closing


def run_halves() -> list[tuple[int, list[str]]]:
    """Run the whole suite in two processes at a time; the second one's output follows the first's.

    One process waits for its servers two thirds of the time.
    """
    here = [path for part in SERVED for path in ("--ignore", part)]
    with tempfile.TemporaryFile("w+") as output, _pytest(SERVED, output) as served:
        results = [run_pytest(here)]
        served.wait()
        output.seek(0)
        closing: list[str] = []
        for line in output:
            _show(line, closing)
    return [*results, (served.returncode, closing)]


def _pytest(arguments: Sequence[str], output: IO[str] | int) -> subprocess.Popen[str]:
    color = ["--color=yes"] if sys.stdout.isatty() else []
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *color, *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _show(line: str, closing: list[str]) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
    if closing or CLOSING.match(_ESCAPE.sub("", line.rstrip())):
        closing.append(line)


def core_is_covered() -> bool:
    """Print the coverage of everything, then tell whether core's is complete."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet"], check=True)
    print("\nCoverage outside core (reported; the servers that tests start are not measured):")
    subprocess.run([*coverage, "report", f"--omit={CORE}", "--skip-covered"], check=False)
    print("\nCoverage of core (gate: every line and branch):")
    gate = [*coverage, "report", f"--include={CORE}", "--fail-under=100"]
    return subprocess.run(gate, check=False).returncode == 0


def skipped_count(closing: Sequence[str]) -> int:
    """Return how many tests pytest's last line calls skipped."""
    found = _SKIPPED.search(_ESCAPE.sub("", closing[-1])) if closing else None
    return int(found[1]) if found else 0


def main() -> int:
    """Run everything and return the exit code."""
    arguments = sys.argv[1:]
    # Data of an earlier run that was interrupted would count otherwise.
    subprocess.run([sys.executable, "-m", "coverage", "erase"], check=True)
    results = [run_pytest(arguments)] if arguments else run_halves()
    faults: list[str] = []
    if not arguments and not core_is_covered():
        faults.append("core/ is not covered to 100 % of its branches; the table above says where")
    skipped = sum(skipped_count(closing) for _, closing in results)
    if is_ci() and skipped:
        faults.append(f"{skipped} tests were skipped, and CI is set: a part is missing here")
    if not all(closing for _, closing in results):
        faults.append("pytest ended without its summary")
    print()
    for _, closing in results:
        sys.stdout.writelines(closing)
    for fault in faults:
        print(f"FAILED GATE: {fault}")
    return max(code for code, _ in results) or (1 if faults else 0)


if __name__ == "__main__":
    sys.exit(main())
