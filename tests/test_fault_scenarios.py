"""Every scenario of faults that we have promised to meet has tests, by name.

The tables are in tests/fault/README.md; a test that is renamed makes them untrue.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parent

SCENARIOS: Final = [
    # Electric's integration tests.
    *("crash-recovery", "rolling-deploy", "invalidated slot", "keepalive during back-pressure"),
    *("self-heal of stuck slot creation", "slot recreated after publication drop"),
    *("exceedingly large transaction", "PG disconnect", "replication lifetime"),
    *("start-up delayed by a pending transaction", "slot self-conflict"),
    # Centrifugo's.
    *("recovery", "epoch flip", "position sync", "never partial recovery"),
    *("duplicates after re-delivery", "ghost subscriptions", "slow client"),
    # PostgreSQL.
    *("killed in mid-transaction", "shut down", "slot dropped", "slot at the limit of its WAL"),
    *("restored from a backup", "standby promoted without the last changes"),
]

_ROW: Final = re.compile(r"^\| (?!Scenario|---)([^|]+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """Return the tests of each row of the tables."""
    page = (TESTS / "fault" / "README.md").read_text(encoding="utf-8")
    return {row: re.findall(r"`([^`]+)`", tests) for row, tests in _ROW.findall(page)}


def test_every_scenario_is_in_a_table() -> None:
    assert list(rows()) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_has_tests_that_exist(scenario: str) -> None:
    named = rows()[scenario]
    assert named
    for name in named:
        file, _, function = name.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        functions = ast.FunctionDef | ast.AsyncFunctionDef
        found = [node.name for node in tree.body if isinstance(node, functions)]
        assert function in found, f"{name} is not there"
