"""``make soak SOAK_MINUTES=30``: writes, cuts, kills and checks for so many minutes.

Exit code 0 if no law was broken. Prints a line each minute and a summary at the end, and writes the
same as JSON to ``benchmarks/results``.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import uvloop

from soak import summary
from soak.run import Scale, run

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def arguments():
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--rows", type=float, default=Scale.rows_per_s, help="row changes a second")
    parser.add_argument("--cuts", type=float, default=Scale.cuts_per_s, help="cuts a second")
    parser.add_argument("--plain", action="store_true", help="the server is a plain owner")
    return parser.parse_args()


def main():
    """Run, print, and return the exit code."""
    # The client package reads what websockets has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    asked = arguments()
    scale = Scale(
        seed=asked.seed,
        duration_s=asked.minutes * 60,
        rows_per_s=asked.rows,
        cuts_per_s=asked.cuts,
        is_plain=asked.plain,
    )
    folder = Path(tempfile.mkdtemp(prefix="heliograph-soak-"))
    print(f"seed {asked.seed}, {asked.minutes:g} minutes, logs in {folder}", flush=True)

    def report(result):
        print(summary.one_line(result), flush=True)

    result = uvloop.run(run(scale, folder, report=report))
    print(summary.text(result), flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "soak.json"
    path.write_text(json.dumps(summary.as_json(result), indent=2) + "\n")
    print(f"\nwritten to {path}")
    if result.ledger.broken:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
