"""Elixir's notation in error texts."""

import pytest

from heliograph import limits
from heliograph.core.matching.inspected import inspected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nil"),
        (True, "true"),
        (False, "false"),
        (12, "12"),
        (1.5, "1.5"),
        ("plain", '"plain"'),
        ('a"b\\c#{d}#e', '"a\\"b\\\\c\\#{d}#e"'),
        ("line\nbreak\0\x01\x85ä", '"line\\nbreak\\0\\x01\\x85ä"'),
        ("\ud800", '"\\x{D800}"'),
        (["foo", "hey"], '["foo", "hey"]'),
        ([("id", "eq", "1", False)], '[{"id", "eq", "1", false}]'),
        ({"table": None, "event": [1]}, '%{"event" => [1], "table" => nil}'),
        ([], "[]"),
        ({}, "%{}"),
    ],
)
def test_values_are_written_as_elixir_inspects_them(value: object, text: str) -> None:
    assert inspected(value) == text


def test_a_long_value_is_cut() -> None:
    text = inspected("x" * 5_000)
    assert len(text) == limits.ERROR_ECHO_CHARACTERS_MAX + 1
    assert text.endswith("…")


def test_deep_nesting_is_not_followed() -> None:
    nested: list[object] = []
    for _ in range(500):
        nested = [nested]
    assert inspected(nested) == "[" * 7 + "..." + "]" * 7
