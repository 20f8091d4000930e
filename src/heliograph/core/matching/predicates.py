"""Bound filter terms compiled for one version of a relation.

Each term is decided from the row's text values, or PostgreSQL must judge it. The answer in Python
is three-valued logic folded to what delivery needs: YES (true), NO (false or NULL), UNDECIDED (a
value that the WAL did not carry: `visibility.md` §3, absent is unknown and never NULL).

Invariant: wherever Python answers YES or NO, PostgreSQL answers the same for
``column operator constant`` (tests/oracle/test_filters_like_postgres.py).
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from heliograph.core.matching.canonical_values import Comparison, KeyFunction, comparison_of
from heliograph.core.matching.filter_parser import FilterOperator
from heliograph.core.matching.filters import BoundTerm
from heliograph.core.matching.table_description import TableDescription, TypeKind
from heliograph.core.matching.visibility import Verdict
from heliograph.core.replication.relation import Relation
from heliograph.core.replication.row_change import Row, Unknown

#: Decides one value: its text, or None for NULL.
_Test = Callable[[str | None], Verdict]

_ORDER: Final[dict[FilterOperator, Callable[[Any, Any], bool]]] = {
    FilterOperator.LT: operator.lt,
    FilterOperator.LTE: operator.le,
    FilterOperator.GT: operator.gt,
    FilterOperator.GTE: operator.ge,
}
_BOOLEAN_TEXT: Final = {"true": "t", "false": "f", "null": None, "unknown": None}


@dataclass(frozen=True, slots=True)
class CompiledFilter:
    """What a subscription's filter says about rows of one relation version.

    Attributes:
        sql_terms: Terms that PostgreSQL must judge, in the client's order. When there are any,
            `decide` answers YES only for "nothing speaks against it so far".
    """

    sql_terms: tuple[BoundTerm, ...]
    _tests: tuple[tuple[int, _Test], ...]
    _is_undecidable: bool

    def decide(self, row: Row) -> Verdict:
        """Judge a row version as far as Python can.

        Args:
            row: Values in the order of the relation's columns; on the old side too, where only
                the key may be known.

        Returns:
            NO as soon as one term does not hold. Otherwise UNDECIDED if a value that a term reads
            is not known: it counts as "not shown" and is reported. Otherwise YES, with the
            reservation of ``sql_terms``.
        """
        undecided = self._is_undecidable
        for position, test in self._tests:
            value = row[position]
            if isinstance(value, Unknown):
                undecided = True
                continue
            verdict = test(value)
            if verdict is Verdict.NO:
                return Verdict.NO
            if verdict is Verdict.UNDECIDED:
                undecided = True
        return Verdict.UNDECIDED if undecided else Verdict.YES


def compile_filter(
    terms: Sequence[BoundTerm], table: TableDescription, relation: Relation
) -> CompiledFilter:
    """Compile a filter for one relation version.

    Args:
        terms: From `filters.bind_parameters`; checked by PostgreSQL where they asked for it.
        table: The description they were bound to.
        relation: The version that the rows follow. A column that it lacks, or has with another
            type, can not be decided.
    """
    places = {column.name: place for place, column in enumerate(relation.columns)}
    tests: list[tuple[int, _Test]] = []
    undecidable = False
    for term in terms:
        place = places.get(term.column.name)
        current = table.column(term.column.name)
        if (
            place is None
            or current is None
            or relation.columns[place].type_oid != term.column.type.oid
            or current.type.oid != term.column.type.oid
        ):
            undecidable = True
        else:
            tests.append((place, _compiled(term)))
    return CompiledFilter(
        sql_terms=tuple([term for term in terms if not term.is_decided_in_python]),
        _tests=tuple(tests),
        _is_undecidable=undecidable,
    )


#: How well a column's equality narrows down: the lower the better.
_SELECTIVITY: Final = {"uuid": 1, "int8": 1, "int4": 1, "int2": 1, "text": 2, "varchar": 2}
_ENUM_SELECTIVITY: Final = 2


def equality_key(terms: Sequence[BoundTerm], table: TableDescription) -> tuple[str, str] | None:
    """Choose the term by which a subscription is found in an index.

    Returns:
        Column name and canonical text of the most selective ``column = constant`` (primary key,
        then uuid and integers, then text and enums): a row matches the filter only if that
        column's text is exactly this. None if no term can serve.
    """
    best: tuple[int, str, str] | None = None
    for term in terms:
        constant = _single_constant(term)
        rank = _rank(term, table)
        if constant is not None and rank is not None and (best is None or rank < best[0]):
            best = (rank, term.column.name, constant)
    return None if best is None else best[1:]


def _single_constant(term: BoundTerm) -> str | None:
    is_equality = term.operator in (FilterOperator.EQ, FilterOperator.IN) and not term.negated
    if not is_equality or term.canonical is None or len(term.canonical) != 1:
        return None
    return term.canonical[0]


def _rank(term: BoundTerm, table: TableDescription) -> int | None:
    resolved = term.column.type.resolved
    is_enum = resolved.kind is TypeKind.ENUM
    rank = _ENUM_SELECTIVITY if is_enum else _SELECTIVITY.get(resolved.name)
    return 0 if rank is not None and term.column.name in table.primary_key else rank


def _compiled(term: BoundTerm) -> _Test:
    if term.canonical is None:
        return _null_test(term)
    if term.operator is FilterOperator.IS:
        return _is_test(_BOOLEAN_TEXT[term.value], wanted=not term.negated)
    if term.operator is FilterOperator.IN and not term.canonical:
        # An empty list: PostgreSQL's answer is false, for NULL too, so NOT makes it true.
        return _always(Verdict.YES if term.negated else Verdict.NO)
    comparison = comparison_of(term.column)
    if comparison is None:  # canonical constants exist only where there is a comparison
        return _always(Verdict.UNDECIDED)
    return _comparison_test(term, comparison, term.canonical)


def _null_test(term: BoundTerm) -> _Test:
    # PostgreSQL judges the value; but NULL under a strict operator is NULL, and never matches.
    if term.operator in (FilterOperator.IS, FilterOperator.ISDISTINCT):
        return _always(Verdict.YES)
    return lambda value: Verdict.NO if value is None else Verdict.YES


def _always(verdict: Verdict) -> _Test:
    return lambda _: verdict


def _is_test(constant: str | None, *, wanted: bool) -> _Test:
    return lambda value: Verdict.YES if (value == constant) is wanted else Verdict.NO


def _comparison_test(
    term: BoundTerm, comparison: Comparison, canonical: tuple[str | None, ...]
) -> _Test:
    order = _ORDER.get(term.operator)
    wanted = not term.negated
    if order is not None:
        return _order_test(order, comparison.key, comparison.key(str(canonical[0])), wanted=wanted)
    if term.operator in (FilterOperator.NEQ, FilterOperator.ISDISTINCT):
        wanted = not wanted
    if None in canonical and not wanted:
        # x = ANY(… NULL …) is true or NULL, so its negation never holds.
        return _always(Verdict.NO)
    constants = [constant for constant in canonical if constant is not None]
    # IS DISTINCT FROM is the only one that holds for NULL (and its negation never does).
    on_null = Verdict.NO
    if term.operator is FilterOperator.ISDISTINCT and not wanted:
        on_null = Verdict.YES
    if comparison.is_text:
        return _text_test(frozenset(constants), on_null=on_null, wanted=wanted)
    keys = frozenset([comparison.key(constant) for constant in constants])
    return _key_test(comparison.key, keys, on_null=on_null, wanted=wanted)


def _order_test(
    order: Callable[[Any, Any], bool], key: KeyFunction, constant: object, *, wanted: bool
) -> _Test:
    def test(value: str | None) -> Verdict:
        if value is None:
            return Verdict.NO
        found = key(value)
        if found is None:
            return Verdict.UNDECIDED
        return Verdict.YES if order(found, constant) is wanted else Verdict.NO

    return test


def _text_test(constants: frozenset[str], *, on_null: Verdict, wanted: bool) -> _Test:
    def test(value: str | None) -> Verdict:
        if value is None:
            return on_null
        return Verdict.YES if (value in constants) is wanted else Verdict.NO

    return test


def _key_test(
    key: KeyFunction, constants: frozenset[object], *, on_null: Verdict, wanted: bool
) -> _Test:
    def test(value: str | None) -> Verdict:
        if value is None:
            return on_null
        found = key(value)
        if found is None:
            return Verdict.UNDECIDED
        return Verdict.YES if (found in constants) is wanted else Verdict.NO

    return test
