"""Compiled filters: three-valued logic over values that may be unknown."""

from dataclasses import replace

import pytest

from fixtures.tables import (
    builtin,
    column,
    composite_of,
    domain_over,
    enum_type,
    relation_of,
    table_of,
)
from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.core.matching.filter_parser import parse_filter
from heliograph.core.matching.filters import BoundTerm, bind_parameters
from heliograph.core.matching.predicates import CompiledFilter, compile_filter, equality_key
from heliograph.core.matching.visibility import Verdict
from heliograph.core.replication.row_change import Unknown, Value

_TABLE = table_of(
    column("id", "int4"),
    column("flag", "bool"),
    column("note", "text"),
    column("amount", "numeric"),
    column("born", "date"),
    column("weight", "float8"),
    column("pair", composite_of(a=builtin("int4"))),
    column("owner", "uuid"),
    column("mood", enum_type()),
    column("label", domain_over(builtin("text"))),
)
_NAMES = [c.name for c in _TABLE.columns]
_UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"

YES, NO, UNDECIDED = Verdict.YES, Verdict.NO, Verdict.UNDECIDED


def _terms(text: str) -> tuple[BoundTerm, ...]:
    parameters = BindingParameters("*", "public", "things", parse_filter(text))
    return bind_parameters(parameters, _TABLE, _NAMES).terms


def _compiled(text: str) -> CompiledFilter:
    return compile_filter(_terms(text), _TABLE, relation_of(_TABLE))


def _decide(text: str, **values: Value) -> Verdict:
    return _compiled(text).decide(tuple([values.get(name) for name in _NAMES]))


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("eq.7", "7", YES),
        ("eq.7", "8", NO),
        ("eq.7", None, NO),
        ("not.eq.7", "8", YES),
        ("not.eq.7", "7", NO),
        ("not.eq.7", None, NO),
        ("neq.7", "8", YES),
        ("neq.7", "7", NO),
        ("neq.7", None, NO),
        ("not.neq.7", "7", YES),
        ("not.neq.7", None, NO),
        ("gt.7", "10", YES),
        ("gt.7", "7", NO),
        ("gte.7", "7", YES),
        ("lt.7", "-10", YES),
        ("lte.7", "8", NO),
        ("gt.7", None, NO),
        ("not.gt.7", "7", YES),
        ("not.gt.7", None, NO),
        ("in.(1,7)", "7", YES),
        ("in.(1,7)", "8", NO),
        ("in.(1,NULL)", "1", YES),
        ("in.(1,NULL)", "2", NO),
        ("not.in.(1,NULL)", "2", NO),
        ("not.in.(1,7)", "2", YES),
        ("not.in.(1,7)", None, NO),
        ("in.()", "1", NO),
        ("in.()", None, NO),
        ("not.in.()", "1", YES),
        ("not.in.()", None, YES),
        ("is.null", None, YES),
        ("is.null", "7", NO),
        ("not.is.null", "7", YES),
        ("not.is.null", None, NO),
        ("isdistinct.7", "8", YES),
        ("isdistinct.7", "7", NO),
        ("isdistinct.7", None, YES),
        ("not.isdistinct.7", "7", YES),
        ("not.isdistinct.7", None, NO),
        ("eq.7", Unknown.NOT_SENT, UNDECIDED),
        ("not.eq.7", Unknown.UNCHANGED_TOAST, UNDECIDED),
        ("is.null", Unknown.NOT_SENT, UNDECIDED),
    ],
)
def test_integers_are_compared_as_postgresql_does(
    text: str, value: Value, verdict: Verdict
) -> None:
    assert _decide(f"id={text}", id=value) is verdict


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("is.true", "t", YES),
        ("is.true", "f", NO),
        ("is.true", None, NO),
        ("not.is.true", None, YES),
        ("is.false", "f", YES),
        ("is.unknown", None, YES),
        ("not.is.unknown", "f", YES),
        ("eq.on", "t", YES),
    ],
)
def test_truth_values(text: str, value: Value, verdict: Verdict) -> None:
    assert _decide(f"flag={text}", flag=value) is verdict


@pytest.mark.parametrize(
    ("text", "column_name", "value", "verdict"),
    [
        ("amount=eq.1.5", "amount", "1.50", YES),
        ("amount=neq.1.5", "amount", "1.50", NO),
        ("amount=gt.Infinity", "amount", "NaN", YES),
        ("amount=isdistinct.1", "amount", None, YES),
        ("amount=eq.1", "amount", None, NO),
        ("born=lt.2026-01-02", "born", "0044-03-15 BC", YES),
        ("born=in.(2026-01-02,infinity)", "born", "infinity", YES),
        ("born=lt.2026-01-02", "born", "01/02/2026", UNDECIDED),
        ("born=eq.2026-01-02", "born", "01/02/2026", UNDECIDED),
        ("owner=eq.{" + _UUID.upper() + "}", "owner", _UUID, YES),
        ("mood=eq.sad", "mood", "sad", YES),
        ("label=eq.a", "label", "a", YES),
        ("note=eq.a", "note", "A", NO),
    ],
)
def test_other_types(text: str, column_name: str, value: Value, verdict: Verdict) -> None:
    assert _decide(text, **{column_name: value}) is verdict


def test_all_terms_must_hold() -> None:
    assert _decide("id=gt.1,note=eq.a", id="2", note="a") is YES
    assert _decide("id=gt.1,note=eq.a", id="2", note="b") is NO
    assert _decide("", id="2") is YES


def test_one_false_term_decides_whatever_is_unknown() -> None:
    assert _decide("id=gt.1,note=eq.a", id=Unknown.NOT_SENT, note="b") is NO
    assert _decide("id=gt.1,note=eq.a", id=Unknown.NOT_SENT, note="a") is UNDECIDED


def test_terms_for_postgresql_are_listed_and_null_never_reaches_them() -> None:
    compiled = _compiled("id=gt.1,note=like.a%,weight=not.eq.1")
    assert [term.column.name for term in compiled.sql_terms] == ["note", "weight"]
    assert _decide("note=like.a%", note="b") is YES
    assert _decide("note=not.like.a%", note=None) is NO
    assert _decide("weight=isdistinct.1", weight=None) is YES
    assert _decide("pair=is.null", pair="(,)") is YES
    assert _decide("note=like.a%", note=Unknown.NOT_SENT) is UNDECIDED


def test_a_column_that_the_relation_lacks_or_types_differently_is_undecidable() -> None:
    terms = _terms("id=gt.1,note=eq.a")
    relation = relation_of(_TABLE)
    without = replace(relation, columns=relation.columns[:2])
    assert compile_filter(terms, _TABLE, without).decide(("2", "t")) is UNDECIDED
    assert compile_filter(terms, _TABLE, without).decide(("1", "t")) is NO
    retyped = replace(
        relation,
        columns=(
            relation.columns[0],
            relation.columns[1],
            replace(relation.columns[2], type_oid=1),
        ),
    )
    assert compile_filter(terms, _TABLE, retyped).decide(("2", "t", "a")) is UNDECIDED


def test_a_column_that_the_catalog_has_dropped_or_retyped_since_is_undecidable() -> None:
    terms = _terms("note=eq.a")
    row: tuple[Value, ...] = tuple(["a"] * len(_NAMES))
    dropped = replace(_TABLE, columns=_TABLE.columns[:2])
    assert compile_filter(terms, dropped, relation_of(_TABLE)).decide(row) is UNDECIDED
    retyped = replace(
        _TABLE, columns=(*_TABLE.columns[:2], column("note", "int4"), *_TABLE.columns[3:])
    )
    assert compile_filter(terms, retyped, relation_of(_TABLE)).decide(row) is UNDECIDED


def test_a_constant_of_a_type_that_python_does_not_compare_decides_nothing() -> None:
    (term,) = _terms("weight=eq.1.5")
    compiled = compile_filter([replace(term, canonical=("1.5",))], _TABLE, relation_of(_TABLE))
    row: tuple[Value, ...] = tuple(["1.5"] * len(_NAMES))
    assert compiled.decide(row) is UNDECIDED


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("note=eq.a,id=eq.07", ("id", "7")),
        ("note=eq.a,owner=eq." + _UUID, ("owner", _UUID)),
        ("mood=eq.sad", ("mood", "sad")),
        ("label=eq.x", ("label", "x")),
        ("note=in.(a)", ("note", "a")),
        ("note=eq.a,mood=eq.sad", ("note", "a")),
        ("note=in.(a,b)", None),
        ("note=in.(NULL)", None),
        ("note=not.eq.a", None),
        ("id=gt.1", None),
        ("flag=eq.t", None),
        ("amount=eq.1", None),
        ("weight=eq.1", None),
        ("", None),
    ],
)
def test_the_most_selective_equality_is_the_index_key(
    text: str, key: tuple[str, str] | None
) -> None:
    assert equality_key(_terms(text), _TABLE) == key
