"""One entry of a join's ``postgres_changes`` list (protocol §10.4, §10.6)."""

import pytest

from heliograph import limits
from heliograph.core.matching.binding_parameters import (
    BindingParameters,
    described,
    not_enabled,
    parse_binding_parameters,
    raised_by_check,
)
from heliograph.core.matching.filter_parser import FilterOperator, FilterTerm
from heliograph.errors import SubscriptionRefusedError

_NO_PARAMETERS = (
    "No subscription params provided. Please provide at least a `schema` or `table` "
    "to subscribe to: "
)


def _refusal(raw: dict[str, object]) -> str:
    with pytest.raises(SubscriptionRefusedError) as caught:
        parse_binding_parameters(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "schema", "table"),
    [
        ({"schema": "s", "table": "t"}, "s", "t"),
        ({"schema": "s"}, "s", "*"),
        ({"table": "t"}, "public", "t"),
        ({"schema": "*"}, "*", "*"),
        ({"schema": "s", "table": "t", "filter": " "}, "s", "t"),
        ({"schema": "s", "table": "t", "filter": None}, "s", "t"),
        ({"schema": "s", "filter": None}, "s", "*"),
        ({"table": "t", "filter": None}, "public", "t"),
        ({"schema": "s", "table": "t", "unknown": {"x": 1}}, "s", "t"),
    ],
)
def test_accepted_shapes(raw: dict[str, object], schema: str, table: str) -> None:
    assert parse_binding_parameters(raw) == BindingParameters("*", schema, table)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ({}, "%{}"),
        ({"schema": "s", "table": "t", "filter": ["id=eq.1"]}, None),
        ({"schema": "s", "filter": "id=eq.1"}, None),
        ({"table": "t", "filter": "id=eq.1"}, None),
        ({"schema": "s", "table": 1}, '%{"schema" => "s", "table" => 1}'),
        ({"schema": None, "table": "t"}, None),
        ({"filter": "id=eq.1"}, None),
        ({"event": "*", "user_token": "secret"}, "<redacted>"),
        ({"auth_token": "secret"}, "<redacted>"),
    ],
)
def test_other_shapes_are_refused(raw: dict[str, object], shown: str | None) -> None:
    text = _refusal(raw)
    assert text.startswith(_NO_PARAMETERS)
    assert "secret" not in text
    if shown is not None:
        assert text == _NO_PARAMETERS + shown


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("INSERT", "INSERT"),
        ("update", "UPDATE"),
        ("Delete", "DELETE"),
        ("*", "*"),
        ("TRUNCATE", "*"),
        (None, "*"),
        (7, "*"),
    ],
)
def test_the_event_is_upper_cased_and_unknown_ones_mean_all(event: object, expected: str) -> None:
    assert parse_binding_parameters({"table": "t", "event": event}).event == expected


def test_filter_and_select_are_read() -> None:
    raw = {"schema": "s", "table": "t", "filter": "id=eq.1", "select": ["b", 1, "a", None, "b"]}
    assert parse_binding_parameters(raw) == BindingParameters(
        "*", "s", "t", (FilterTerm("id", FilterOperator.EQ, "1"),), ("b", "a")
    )


@pytest.mark.parametrize("select", [[], [1, None], None, {"a": 1}, 5])
def test_a_select_without_names_means_all_columns(select: object) -> None:
    assert parse_binding_parameters({"table": "t", "select": select}).select is None


def test_a_select_that_is_a_string_is_refused_before_anything_else() -> None:
    assert _refusal({"select": "id"}) == (
        "Error parsing `select` params: expected a list of column name strings, "
        'e.g. select: ["col1", "col2"]'
    )


def test_a_select_of_more_names_than_a_table_can_have_is_refused() -> None:
    names = [f"c{place}" for place in range(limits.SELECT_COLUMNS_MAX + 1)]
    assert "at most 1600" in _refusal({"table": "t", "select": names})


@pytest.mark.parametrize("raw", [{"schema": "s"}, {"schema": "*", "table": "t"}])
def test_a_select_with_a_wildcard_is_refused(raw: dict[str, object]) -> None:
    assert _refusal({**raw, "select": ["id"]}) == (
        "Column selection is not supported for wildcard subscriptions. "
        "Provide an explicit schema and table name."
    )


def test_a_filter_that_breaks_the_grammar_is_refused() -> None:
    raw: dict[str, object] = {"schema": "s", "table": "t", "filter": "wrong"}
    assert _refusal(raw) == 'Error parsing `filter` params: ["wrong"]'


@pytest.mark.parametrize("raw", [{"schema": "a\0"}, {"table": "b\ud800"}])
def test_names_that_no_database_can_hold_name_no_published_table(raw: dict[str, object]) -> None:
    assert "Please check Realtime is enabled" in _refusal(raw)


def test_the_texts_of_the_reference() -> None:
    parameters = BindingParameters("INSERT", "public", "*")
    assert str(not_enabled(parameters)) == (
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled "
        "for the given connect parameters: "
        "[event: INSERT, schema: public, table: *, filters: [], select: nil]"
    )
    parameters = BindingParameters(
        "*", "public", "test", (FilterTerm("notacolumn", FilterOperator.EQ, "123"),), None
    )
    assert str(raised_by_check(parameters, "invalid column for filter notacolumn")) == (
        "Unable to subscribe to changes with given parameters. An exception happened so please "
        "check your connect parameters: [event: *, schema: public, table: test, "
        'filters: [{"notacolumn", "eq", "123", false}], select: nil]. '
        "Exception: ERROR P0001 (raise_exception) invalid column for filter notacolumn"
    )


def test_selected_columns_and_long_names_are_described_in_part() -> None:
    text = described(BindingParameters("*", "s" * 5_000, "t", (), ("a", "b")))
    assert 'select: ["a", "b"]' in text
    assert len(text) < 1_200


@pytest.mark.parametrize(
    ("entry", "may_name"),
    [
        ({"schema": "public", "table": "notes"}, True),
        ({"schema": "public", "table": "*"}, True),
        ({"schema": "*", "table": "notes"}, True),
        ({"schema": "public", "table": "note"}, False),
        ({"schema": "Public", "table": "*"}, False),
    ],
)
def test_an_entry_names_tables_exactly(entry: dict[str, object], may_name: bool) -> None:
    assert parse_binding_parameters(entry).may_name("public", "notes") is may_name
