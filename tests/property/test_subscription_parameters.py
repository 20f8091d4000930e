"""Whatever a client sends as subscription parameters: an answer or the one refusal."""

import contextlib

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from fixtures.tables import array_of, builtin, column, enum_type, relation_of, table_of
from heliograph.core.matching.array_literal import flattened, parse_array, parse_composite
from heliograph.core.matching.binding_parameters import (
    BindingParameters,
    parse_binding_parameters,
)
from heliograph.core.matching.filter_parser import FilterOperator, FilterTerm, parse_filter
from heliograph.core.matching.filters import bind_parameters
from heliograph.core.matching.predicates import compile_filter, equality_key
from heliograph.core.matching.record_literal import record_literal
from heliograph.errors import SubscriptionRefusedError

pytestmark = pytest.mark.property

_ANY_TEXT = st.text(st.characters())  # unpaired surrogates and NUL included
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_FILTER = st.lists(
    st.sampled_from([*'abid=.,()"\\{} 1', "eq.", "in.(", "not.", "is.null", "=", "note", "tags"]),
    max_size=20,
).map("".join)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(["event", "schema", "table", "filter", "select", "user_token", "x"])

_TABLE = table_of(
    column("id", "int4"),
    column("note", "text"),
    column("flag", "bool"),
    column("amount", "numeric"),
    column("born", "timestamptz"),
    column("owner", "uuid"),
    column("weight", "float8"),
    column("mood", enum_type()),
    column("tags", array_of(builtin("text"))),
)
_NAMES = [c.name for c in _TABLE.columns]


@given(text=_ANY_TEXT | _FILTER)
@example(text='a=eq."' + "\\" * 999)
@example(text="a=in.(" + "(" * 999)
def test_any_filter_text_is_read_or_refused(text: str) -> None:
    try:
        terms = parse_filter(text)
    except SubscriptionRefusedError as refusal:
        msgspec.json.encode(str(refusal))
    else:
        assert len(terms) <= len(text) + 1


@given(raw=st.dictionaries(_KEYS, _JSON | _FILTER))
def test_any_entry_is_read_or_refused(raw: dict[str, object]) -> None:
    try:
        parameters = parse_binding_parameters(raw)
    except SubscriptionRefusedError as refusal:
        msgspec.json.encode(str(refusal))
    else:
        assert parameters.event in {"*", "INSERT", "UPDATE", "DELETE"}


@given(
    name=st.sampled_from(_NAMES),
    operator=st.sampled_from(FilterOperator),
    constant=_TEXT,
    negated=st.booleans(),
    value=st.none() | st.sampled_from(["7", "t", "1.5", "NaN", "sad", "2026-01-02 03:04:05+00"]),
)
def test_any_term_is_bound_and_decided_or_refused(
    name: str, operator: FilterOperator, constant: str, negated: bool, value: str | None
) -> None:
    term = FilterTerm(name, operator, constant, negated)
    parameters = BindingParameters("*", "public", "things", (term,))
    try:
        bound = bind_parameters(parameters, _TABLE, _NAMES)
    except SubscriptionRefusedError:
        return
    equality_key(bound.terms, _TABLE)
    compiled = compile_filter(bound.terms, _TABLE, relation_of(_TABLE))
    place = _NAMES.index(name)
    number = {"id": "7", "amount": "1.5"}.get(name)
    row = tuple(
        [
            (number if number and value else value) if i == place else None
            for i in range(len(_NAMES))
        ]
    )
    compiled.decide(row)


@given(values=st.lists(_TEXT, min_size=1, max_size=4))
def test_quoted_values_come_back_as_they_were(values: list[str]) -> None:
    quoted = ['"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values]
    text = ",".join([f"c{place}=eq.{value}" for place, value in enumerate(quoted)])
    assert [(t.column, t.value) for t in parse_filter(text)] == [
        (f"c{place}", value) for place, value in enumerate(values)
    ]
    (listed,) = parse_filter(f"c=in.({','.join(quoted)})")
    assert flattened(parse_array(listed.value)) == values


@given(values=st.lists(st.none() | _TEXT, min_size=1, max_size=5))
def test_composite_literals_come_back_as_they_were(values: list[str | None]) -> None:
    assert parse_composite(record_literal(values)) == values


@given(text=st.text(st.sampled_from('{}[]:=(),"\\ N1'), max_size=12) | _TEXT)
def test_any_literal_is_read_or_a_value_error(text: str) -> None:
    for read in (parse_array, parse_composite):
        with contextlib.suppress(ValueError):
            read(text)
