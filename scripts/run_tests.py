"""Run the whole suite once, with coverage, and hold the results against the gates.

Usage: ``python scripts/run_tests.py [PYTEST ARGUMENT …]``

1. pytest in random order, under coverage. Without arguments once for each part of the suite, two
   parts at a time; where coverage would only cost time, without it.
2. Without arguments: every line and branch of ``core/`` was run; the rest is only reported.
3. With ``CI`` set: no test was skipped. A missing part of the machine is a failure there.

pytest's closing lines are printed again at the very end, so that whoever reads only the end of a
long log sees how many tests passed. The exit code is pytest's, the highest of several, or 1 if a
gate failed.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.ci import is_ci

#: The files whose every branch must be run, as coverage patterns.
CORE: Final = "src/heliograph/core/*"

#: One waits for its servers most of the time; the smallest machine has two processors.
PROCESSES: Final = 2

#: Where pytest's closing lines begin: the list of failures and reasons, or the last line itself.
CLOSING: Final = re.compile(r"^=+ (short test summary info|.*\bin \d+\.\d+s).*=+$")

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")
_SKIPPED: Final = re.compile(r"\b(\d+) skipped\b")


@dataclass(frozen=True)
class Part:
    """Tests that one pytest runs.

    Attributes:
        paths: All but what is in the paths of another part; none for what is in no other part.
        is_measured: Whether coverage counts there. Not where it is other processes that run what
            is tested, nor for thousands of simulated worlds.
    """

    paths: tuple[str, ...] = ()
    is_measured: bool = True

    def arguments(self) -> list[str]:
        """Return pytest's arguments."""
        mine = self.paths or ("tests",)
        others = [path for part in PARTS if part is not self for path in part.paths]
        within = [path for path in others if any(Path(path).is_relative_to(own) for own in mine)]
        return [*self.paths, *(argument for path in within for argument in ("--ignore", path))]


#: The whole suite, the longest part first, so that both processes end at about the same time.
PARTS: Final = (
    Part(("tests/integration",)),
    Part(("tests/interop",), is_measured=False),
    Part(("tests/oracle", "tests/soak"), is_measured=False),
    Part(("tests/fault",), is_measured=False),
    Part(("tests/unit",)),
    Part(
        (
            "tests/unit/server/delivery/test_stream_simulation.py",
            "tests/unit/server/delivery/test_resuming_simulation.py",
        ),
        is_measured=False,
    ),
    Part(),
)


@dataclass(frozen=True)
class Outcome:
    """How one pytest ended.

    Attributes:
        code: Its exit code.
        closing: Its lines from the short summary (if any) to the last one.
    """

    code: int
    closing: Sequence[str]


def run_pytest(
    arguments: Sequence[str], show: Callable[[str], None], *, is_measured: bool = True
) -> Outcome:
    """Run pytest, under coverage or not, and show its lines as they come."""
    coverage = ["-m", "coverage", "run"] if is_measured else []
    color = ["--color=yes"] if sys.stdout.isatty() else []
    command = [sys.executable, *coverage, "-m", "pytest", *color, *arguments]
    closing: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            show(line)
            if closing or CLOSING.match(_ESCAPE.sub("", line.rstrip())):
                closing.append(line)
    return Outcome(pytest.returncode, closing)


def run_parts() -> list[Outcome]:
    """Run the whole suite: whichever process is free takes the next part."""
    with ThreadPoolExecutor(PROCESSES) as processes:
        return list(processes.map(_run_part, PARTS))


def _run_part(part: Part) -> Outcome:
    """Run one part and show all of its lines when it has ended."""
    name = " ".join(part.paths) or "all else"
    began_s = time.monotonic()
    _show(f"--- {name}: begins\n")
    lines: list[str] = []
    outcome = run_pytest(part.arguments(), lines.append, is_measured=part.is_measured)
    _show(f"--- {name}: took {time.monotonic() - began_s:.0f} s\n{''.join(lines)}")
    return outcome


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def core_is_covered() -> bool:
    """Print the coverage of everything, then tell whether core's is complete."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet"], check=True)
    print("\nCoverage outside core (reported; without started servers and simulations):")
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
    outcomes = [run_pytest(arguments, _show)] if arguments else run_parts()
    faults: list[str] = []
    if not arguments and not core_is_covered():
        faults.append("core/ is not covered to 100 % of its branches; the table above says where")
    skipped = sum(skipped_count(outcome.closing) for outcome in outcomes)
    if is_ci() and skipped:
        faults.append(f"{skipped} tests were skipped, and CI is set: a part is missing here")
    if not all(outcome.closing for outcome in outcomes):
        faults.append("pytest ended without its summary")
    print()
    for outcome in outcomes:
        sys.stdout.writelines(outcome.closing)
    for fault in faults:
        print(f"FAILED GATE: {fault}")
    # A process that was killed has a negative code.
    worst = max((outcome.code for outcome in outcomes), key=abs)
    return worst or (1 if faults else 0)


if __name__ == "__main__":
    sys.exit(main())
