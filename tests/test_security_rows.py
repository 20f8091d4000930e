"""Every threat that this version meets has tests, by name, and `pytest -m security` runs them.

The table is in tests/README.md; a test that is renamed or loses its mark makes it untrue.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parent

#: S21 to S28, S38 and S40 to S43 are about parts that do not exist yet.
ROWS: Final = [f"S{number}" for number in (*range(1, 21), *range(29, 38), 39)]

_ROW: Final = re.compile(r"^\| (S\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """Return the tests of each row of the table."""
    page = (TESTS / "README.md").read_text(encoding="utf-8")
    return {row: re.findall(r"`([^`]+)`", tests) for row, tests in _ROW.findall(page)}


def test_every_row_is_in_the_table() -> None:
    assert list(rows()) == ROWS


def is_marked(node: ast.AST) -> bool:
    return "pytest.mark.security" in ast.unparse(node)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_tests_that_exist_and_are_marked(row: str) -> None:
    named = rows()[row]
    assert named
    for name in named:
        file, _, function = name.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
        ]
        assert found, f"{name} is not there"
        marks = [
            *found[0].decorator_list,
            *(node for node in tree.body if isinstance(node, ast.Assign)),
        ]
        assert any(is_marked(mark) for mark in marks), f"{name} lacks the mark `security`"
