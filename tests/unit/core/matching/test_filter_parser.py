"""The grammar of a filter string (protocol §10.5)."""

import pytest

from heliograph import limits
from heliograph.core.matching.filter_parser import (
    FilterOperator,
    FilterTerm,
    is_storable,
    parse_filter,
)
from heliograph.errors import SubscriptionRefusedError

_PREFIX = "Error parsing `filter` params: "


def _terms(text: str) -> list[tuple[str, str, str, bool]]:
    return [(t.column, t.operator.value, t.value, t.negated) for t in parse_filter(text)]


@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_a_blank_filter_is_no_filter(text: str) -> None:
    assert parse_filter(text) == ()


@pytest.mark.parametrize("operator", list(FilterOperator))
def test_every_operator_may_be_negated(operator: FilterOperator) -> None:
    value, read = ("(1)", "{1}") if operator is FilterOperator.IN else ("1", "1")
    assert parse_filter(f"id={operator.value}.{value}") == (FilterTerm("id", operator, read),)
    assert parse_filter(f"id=not.{operator.value}.{value}") == (
        FilterTerm("id", operator, read, negated=True),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=gt.0,id=lt.100", [("id", "gt", "0", False), ("id", "lt", "100", False)]),
        (" id=eq.1 , b=eq.2 ", [("id", "eq", "1", False), ("b", "eq", "2", False)]),
        ("a=eq.x),b=eq.y", [("a", "eq", "x)", False), ("b", "eq", "y", False)]),
        ("a=eq.(x,y),b=eq.z", [("a", "eq", "(x,y)", False), ("b", "eq", "z", False)]),
        ("a=in.(1,2),b=eq.3", [("a", "in", "{1,2}", False), ("b", "eq", "3", False)]),
        ("a=in.()", [("a", "in", "{}", False)]),
        ('a=in.("x,y",z)', [("a", "in", '{"x,y",z}', False)]),
        ('a=in.(x,"y),z")', [("a", "in", '{x,"y),z"}', False)]),
        ('a=eq."x,y"', [("a", "eq", "x,y", False)]),
        ('a=eq."x,y",b=eq.z', [("a", "eq", "x,y", False), ("b", "eq", "z", False)]),
        ('a=eq."say \\"hi\\", C:\\\\tmp \\n"', [("a", "eq", 'say "hi", C:\\tmp n', False)]),
        ('a=eq.""', [("a", "eq", "", False)]),
        ('a=eq." x "', [("a", "eq", " x ", False)]),
        ('a=not.neq."x,y"', [("a", "neq", "x,y", True)]),
        ('a=eq."open,b=eq.1', [("a", "eq", '"open,b=eq.1', False)]),
        ('a=eq."x"y', [("a", "eq", '"x"y', False)]),
        ('a=eq.5" tall,b=eq.1', [("a", "eq", '5" tall', False), ("b", "eq", "1", False)]),
        ('a=eq.x,"b=eq.1', [("a", "eq", "x", False), ('"b', "eq", "1", False)]),
        ('a=eq.O\'Brien "x"', [("a", "eq", 'O\'Brien "x"', False)]),
        ("a=eq.b=c.d", [("a", "eq", "b=c.d", False)]),
        ("=eq.", [("", "eq", "", False)]),
        ("a b=eq.1", [("a b", "eq", "1", False)]),
    ],
)
def test_terms_are_read(text: str, expected: list[tuple[str, str, str, bool]]) -> None:
    assert _terms(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("wrong", '["wrong"]'),
        ("undefined", '["undefined"]'),
        ("a=eq", '["eq"]'),
        ("a=not.eq", '["eq"]'),
        ("subject=foo.hey", '["foo", "hey"]'),
        ("subject=EQ.hey", '["EQ", "hey"]'),
        ("a=not.not.eq.1", '["not", "eq.1"]'),
        ("a=in.1,2", "`in` filter value must be wrapped by parentheses"),
        ("a=in.", "`in` filter value must be wrapped by parentheses"),
        ("a=in.(", "`in` filter value must be wrapped by parentheses"),
        ("a=in.(1", "`in` filter value must be wrapped by parentheses"),
        ("a=eq.1,", "filter must not contain empty segments (check for extra commas)"),
        (",a=eq.1", "filter must not contain empty segments (check for extra commas)"),
        ("a=eq.1,,b=eq.2", "filter must not contain empty segments (check for extra commas)"),
        ("a=eq.\0", "filter must not contain NUL characters or unpaired surrogates"),
        ("a=eq.\ud800", "filter must not contain NUL characters or unpaired surrogates"),
        ("a=eq." + "x" * 20_000, "filter must not be longer than 16384 bytes"),
        ("a=eq." + "ä" * 9_000, "filter must not be longer than 16384 bytes"),
    ],
)
def test_what_breaks_the_grammar_is_refused_with_the_reference_text(text: str, reason: str) -> None:
    with pytest.raises(SubscriptionRefusedError) as caught:
        parse_filter(text)
    assert str(caught.value) == _PREFIX + reason


def test_the_number_of_terms_is_bounded() -> None:
    most = limits.FILTER_TERMS_MAX
    assert len(parse_filter(",".join(["a=eq.1"] * most))) == most
    with pytest.raises(SubscriptionRefusedError, match=f"more than {most} terms"):
        parse_filter(",".join(["a=eq.1"] * (most + 1)))


def test_only_text_without_nul_and_surrogates_is_storable() -> None:
    assert is_storable("ä😀")
    assert not is_storable("a\0")
    assert not is_storable("\udfff")
