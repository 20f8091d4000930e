"""Filter terms bound to a table (protocol §10.5, §10.6; security S13, S18)."""

from dataclasses import replace

import pytest

from fixtures.tables import (
    array_of,
    builtin,
    column,
    composite_of,
    domain_over,
    enum_type,
    table_of,
)
from heliograph import limits
from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.core.matching.filter_parser import parse_filter
from heliograph.core.matching.filters import BoundParameters, BoundTerm, bind_parameters
from heliograph.core.matching.table_description import TypeDescription
from heliograph.errors import SubscriptionRefusedError

_CITEXT = TypeDescription(70_000, "extensions", "citext", "extensions.citext")
_TABLE = table_of(
    column("id", "int4"),
    column("flag", "bool"),
    column("small_flag", domain_over(builtin("bool"))),
    column("note", "text"),
    column("short", "varchar"),
    column("label", domain_over(builtin("text"))),
    column("mixed", "text", deterministic=False),
    column("ci", _CITEXT),
    column("bytes", "bytea"),
    column("mood", enum_type()),
    column("amount", "numeric"),
    column("weight", "float8"),
    column("tags", array_of(builtin("text"))),
    column("pair", composite_of(a=builtin("int4"))),
    column("secret", "text"),
)
_INVALID = "ERROR 22P02 (invalid_text_representation)"
_OUT_OF_RANGE = "ERROR 22003 (numeric_value_out_of_range)"
_SELECTABLE = frozenset(c.name for c in _TABLE.columns) - {"secret"}


def _bound(text: str, select: tuple[str, ...] | None = None) -> BoundParameters:
    parameters = BindingParameters("*", "public", "things", parse_filter(text), select)
    return bind_parameters(parameters, _TABLE, _SELECTABLE)


def _term(text: str) -> BoundTerm:
    (term,) = _bound(text).terms
    return term


def _refusal(text: str, select: tuple[str, ...] | None = None) -> str:
    with pytest.raises(SubscriptionRefusedError) as caught:
        _bound(text, select)
    return str(caught.value).partition("Exception: ")[2]


@pytest.mark.parametrize(
    ("text", "exception"),
    [
        ("nothing=eq.1", "invalid column for filter nothing"),
        ("secret=eq.1", "invalid column for filter secret"),
        ("id=is.something", "invalid value for is filter: must be null, true, false, or unknown"),
        ("id=is.true", "is true filter requires a boolean column, got integer"),
        ("note=is.unknown", "is unknown filter requires a boolean column, got text"),
        ("id=like.1%", "operator like requires a text-compatible column type, got integer"),
        ("id=imatch.1", "operator imatch requires a text-compatible column type, got integer"),
        ("bytes=ilike.a", "operator ilike requires a text-compatible column type, got bytea"),
        ("mood=like.a", "operator like requires a text-compatible column type, got mood"),
        ("pair=match.a", "operator match requires a text-compatible column type, got pair"),
        ("mixed=ilike.a", "operator ilike requires a deterministic collation"),
        ("tags=in.(a)", "operator in requires a column that is not an array, got text[]"),
        (
            f"note=match.{'a' * 2_001}",
            "pattern for match filter is longer than 2000 characters",
        ),
        (
            f"id=in.({','.join('1' * 101)})",
            "too many values for `in` filter. Maximum 100",
        ),
    ],
)
def test_terms_that_do_not_fit_the_table_are_refused(text: str, exception: str) -> None:
    assert _refusal(text) == f"ERROR P0001 (raise_exception) {exception}"


@pytest.mark.parametrize(
    ("text", "exception"),
    [
        (
            "id=eq.hey",
            f'{_INVALID} invalid input syntax for type integer: "hey"',
        ),
        (
            "id=in.(1,hey)",
            f'{_INVALID} invalid input syntax for type integer: "hey"',
        ),
        (
            "id=lt.2147483648",
            f'{_OUT_OF_RANGE} value "2147483648" is out of range for type integer',
        ),
        (
            "id=in.(1,)",
            'ERROR 22P02 (invalid_text_representation) malformed array literal: "{1,}"',
        ),
        (
            "note=like.a\\",
            "ERROR 22025 (invalid_escape_sequence) LIKE pattern must not end with escape character",
        ),
    ],
)
def test_constants_are_refused_in_postgresqls_words(text: str, exception: str) -> None:
    assert _refusal(text) == exception


def test_a_column_that_the_stream_does_not_carry_can_not_be_filtered_by() -> None:
    table = replace(_TABLE, published_columns=frozenset({"id"}))
    parameters = BindingParameters("*", "public", "things", parse_filter("note=eq.a"))
    with pytest.raises(SubscriptionRefusedError, match="note can not be decided"):
        bind_parameters(parameters, table, _SELECTABLE)


@pytest.mark.parametrize("select", [("nothing",), ("id", "secret")])
def test_selected_columns_must_exist_and_be_readable(select: tuple[str, ...]) -> None:
    assert _refusal("", select) == (
        f"ERROR P0001 (raise_exception) invalid column for select {select[-1]}"
    )


def test_a_refusal_repeats_no_megabyte_and_can_be_sent() -> None:
    with pytest.raises(SubscriptionRefusedError) as caught:
        _bound("", ("\ud800" + "x" * 1_000_000,))
    assert len(str(caught.value).encode()) < 4_000


def test_a_selection_of_readable_columns_is_kept() -> None:
    assert _bound("", ("note",)).parameters.select == ("note",)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("id=eq. 007 ", ("7",)),
        ("id=not.gt.1", ("1",)),
        ("flag=neq.yes", ("t",)),
        ("small_flag=is.true", ("true",)),
        ("note=eq.a", ("a",)),
        ("label=isdistinct.a", ("a",)),
        ("id=in.(1,NULL,02)", ("1", None, "2")),
        ("weight=in.()", ()),
        ("mood=eq.sad", ("sad",)),
        ("weight=is.null", ("null",)),
        ("id=eq.0x1", None),
        ("id=in.(1,0x1)", None),
        ("weight=eq.1.5", None),
        ("weight=in.(1.5)", None),
        ("mood=gt.sad", None),
        ("note=lt.a", None),
        ("note=like.a%", None),
        ("pair=is.null", None),
        ("mixed=eq.a", None),
    ],
)
def test_python_decides_what_it_can_compare_exactly(
    text: str, canonical: tuple[str | None, ...] | None
) -> None:
    term = _term(text)
    assert term.canonical == canonical
    assert term.is_decided_in_python is (canonical is not None)


@pytest.mark.parametrize(
    ("text", "is_checked"),
    [
        ("id=eq.1", False),
        ("id=is.null", False),
        ("pair=is.null", False),
        ("note=like.a%", False),
        ("short=ilike.a\\\\\\\\", False),
        ("label=like.a", False),
        ("note=match.^a", True),
        ("ci=like.a", True),
        ("bytes=like.a", True),
        ("mood=eq.sad", True),
        ("weight=eq.1", True),
        ("weight=in.()", True),
        ("id=eq.0x1", True),
        ("amount=eq.1", False),
        ("note=lt.a", True),
    ],
)
def test_what_python_can_not_prove_is_marked_for_postgresql(text: str, is_checked: bool) -> None:
    bound = _bound(f"id=eq.1,{text}")
    assert (bound.needs_postgres_check == (bound.terms[1],)) is is_checked


def test_the_bounds_themselves_are_accepted() -> None:
    ones = ",".join("1" * limits.FILTER_IN_VALUES_MAX)
    assert len(_term(f"id=in.({ones})").elements) == limits.FILTER_IN_VALUES_MAX
    pattern = "a" * limits.FILTER_PATTERN_CHARACTERS_MAX
    assert _term(f"note=match.{pattern}").value == pattern
