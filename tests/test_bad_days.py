"""Every section of `docs/topics/bad-days.md` has tests, by name.

The table is in tests/README.md; a test that is renamed, or a section without one, makes it untrue.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parent
PAGE: Final = TESTS.parent / "docs" / "topics" / "bad-days.md"

_SECTION: Final = re.compile(r"^## (.+)$", re.MULTILINE)
_ROW: Final = re.compile(r"^\| ([^|]+) \| (`[^|]+) \|$", re.MULTILINE)


def sections() -> list[str]:
    """Return the headings of the page, in order."""
    return _SECTION.findall(PAGE.read_text(encoding="utf-8"))


def rows() -> dict[str, list[str]]:
    """Return the tests of each section."""
    readme = (TESTS / "README.md").read_text(encoding="utf-8")
    _, _, table = readme.partition("\n## Bad days\n")
    return {section: re.findall(r"`([^`]+)`", tests) for section, tests in _ROW.findall(table)}


def test_the_table_has_every_section_of_the_page() -> None:
    assert list(rows()) == sections()


@pytest.mark.parametrize("section", sections())
def test_every_section_has_tests_that_exist(section: str) -> None:
    for name in rows()[section]:
        file, _, function = name.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert function in found, f"{name} is not there"
