"""PostgreSQL's array and composite literals."""

import pytest

from heliograph.core.matching.array_literal import (
    ArrayItem,
    flattened,
    parse_array,
    parse_composite,
)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("{}", []),
        ("{ }", []),
        ("{1,NULL,null,3}", ["1", None, None, "3"]),
        ('{"NULL",NULL}', ["NULL", None]),
        ("{ a , b c }", ["a", "b c"]),
        ('{"a,b", "c}" }', ["a,b", "c}"]),
        ('{"q\\"\\\\x"}', ['q"\\x']),
        ('{""}', [""]),
        ("{a\\,b}", ["a,b"]),
        ("{a\\,}", ["a,"]),
        ("{a\\ \\  , \\b }", ["a  ", "b"]),
        ("{\\NULL}", ["NULL"]),
        ("{{1,2},{3,4}}", [["1", "2"], ["3", "4"]]),
        ("{ {1} , {NULL} }", [["1"], [None]]),
        ("{{{1}},{{2}}}", [[["1"]], [["2"]]]),
        ("{{},{}}", [[], []]),
        ("[2:3]={1,2}", ["1", "2"]),
        ("[-1:0][5:5]={{1},{2}}", [["1"], ["2"]]),
        (" {1} ", ["1"]),
    ],
)
def test_arrays_are_taken_apart(text: str, items: list[ArrayItem]) -> None:
    assert parse_array(text) == items


def test_another_delimiter_separates_boxes() -> None:
    assert parse_array("{(3,4),(1,2);(7,8),(5,6)}", ";") == ["(3,4),(1,2)", "(7,8),(5,6)"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "{",
        "{1",
        "{1,",
        "{1,}",
        "{,1}",
        "{1,,2}",
        "{1, }",
        "{ ,1}",
        "{1}x",
        '{a"b"}',
        '{"a"b}',
        '{"a}',
        "{1,{2}}",
        "{{1},2}",
        "{{1},{2,3}}",
        "{{{1},{2}},{{3}}}",
        "{{{1},{2,3}}}",
        "{{1}{2}}",
        "{1 {2}}",
        "{" * 7 + "}" * 7,
        "{" * 5_000,
    ],
)
def test_malformed_arrays_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"array|dimensions"):
        parse_array(text)


def test_dimensions_are_flattened_in_storage_order() -> None:
    assert flattened(parse_array("{{1,2},{NULL,4}}")) == ["1", "2", None, "4"]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("(1,x)", ["1", "x"]),
        ("(,)", [None, None]),
        ('("",)', ["", None]),
        ("()", [None]),
        ('(" a ","b""c\\\\d,()")', [" a ", 'b"c\\d,()']),
    ],
)
def test_composites_are_taken_apart(text: str, fields: list[str | None]) -> None:
    assert parse_composite(text) == fields


@pytest.mark.parametrize("text", ["", "1", "(1", "1)", '("a)', '("a"b)', "(a(b)", "(a\\b)"])
def test_malformed_composites_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match="composite literal"):
        parse_composite(text)
