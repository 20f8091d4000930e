"""Filter terms bound to a table: columns exist, operators fit, constants are of the column's type.

What Python can prove is proven here; a constant that only PostgreSQL can read is marked in
`BoundParameters.needs_postgres_check` and must be accepted by it before the subscription counts
(``postgres/filter_sql.py``). Afterwards a term can not fail on a row for a reason of its own.
Source: protocol §10.5 and §10.6; security S13 and S18.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, NoReturn

from heliograph import limits
from heliograph.core.matching.array_literal import flattened, parse_array
from heliograph.core.matching.binding_parameters import (
    BindingParameters,
    raised,
    raised_by_check,
)
from heliograph.core.matching.canonical_values import (
    Comparison,
    ConstantFault,
    comparison_of,
    is_boolean,
)
from heliograph.core.matching.filter_parser import FilterOperator, FilterTerm
from heliograph.core.matching.table_description import (
    ColumnDescription,
    TableDescription,
    TypeDescription,
    TypeKind,
)

ORDER_OPERATORS: Final = frozenset(
    {FilterOperator.LT, FilterOperator.LTE, FilterOperator.GT, FilterOperator.GTE}
)
PATTERN_OPERATORS: Final = frozenset(
    {FilterOperator.LIKE, FilterOperator.ILIKE, FilterOperator.MATCH, FilterOperator.IMATCH}
)
#: Operators whose constant is a regular expression.
REGEX_OPERATORS: Final = frozenset({FilterOperator.MATCH, FilterOperator.IMATCH})

_IS_KEYWORDS: Final = frozenset({"null", "true", "false", "unknown"})
_PATTERN_TYPES: Final = frozenset({"text", "varchar", "bpchar", "name"})


@dataclass(frozen=True, slots=True)
class BoundTerm:
    """One condition on one column of a table.

    Attributes:
        column: The column.
        operator: What is asked.
        negated: Whether the answer is turned round (NULL stays NULL).
        value: The constant as the client wrote it, unquoted. For ``in`` the array literal.
        elements: For ``in`` the constants of the list, None for NULL; otherwise empty.
        canonical: The constants (``elements`` or ``value`` alone) in the form in which PostgreSQL
            prints them, or at least reads them exactly, if Python decides the term. None if
            PostgreSQL judges it.
    """

    column: ColumnDescription
    operator: FilterOperator
    negated: bool
    value: str
    elements: tuple[str | None, ...] = ()
    canonical: tuple[str | None, ...] | None = None

    @property
    def is_decided_in_python(self) -> bool:
        """Whether no SQL is needed to judge it."""
        return self.canonical is not None


@dataclass(frozen=True, slots=True)
class BoundParameters:
    """A binding whose filter and columns fit its table.

    Attributes:
        parameters: What the client asked for.
        terms: Its conditions, in order.
        needs_postgres_check: Those whose constant PostgreSQL must accept first.
    """

    parameters: BindingParameters
    terms: tuple[BoundTerm, ...]
    needs_postgres_check: tuple[BoundTerm, ...]


def bind_parameters(
    parameters: BindingParameters, table: TableDescription, selectable: Container[str]
) -> BoundParameters:
    """Bind an entry's filter and column selection to a table.

    Args:
        parameters: The entry.
        table: One table that it stands for.
        selectable: Names of the columns that the role may SELECT. A column outside is treated
            like one that does not exist, so that a filter is no oracle (S13).

    Raises:
        SubscriptionRefusedError: With the protocol's text for the first term or column that does
            not fit.
    """
    terms = tuple(
        [_Binder(parameters, table, selectable, term).bound() for term in parameters.filter_terms]
    )
    for name in parameters.select or ():
        if table.column(name) is None or name not in selectable:
            raise raised_by_check(parameters, f"invalid column for select {name}")
    return BoundParameters(parameters, terms, tuple([t for t in terms if _needs_check(t)]))


def _needs_check(term: BoundTerm) -> bool:
    if term.operator is FilterOperator.IS:
        return False
    if term.operator in PATTERN_OPERATORS:
        # A LIKE pattern of text is proven here; one of bytea or of an extension's type is not.
        is_text = term.column.type.resolved.name in _PATTERN_TYPES
        return term.operator in REGEX_OPERATORS or not is_text
    if term.canonical is None:
        return True
    comparison = comparison_of(term.column)
    return comparison is None or not comparison.is_checked


class _Binder:
    """Binds one term; every refusal repeats the whole entry."""

    __slots__ = ("_parameters", "_selectable", "_table", "_term")

    def __init__(
        self,
        parameters: BindingParameters,
        table: TableDescription,
        selectable: Container[str],
        term: FilterTerm,
    ) -> None:
        self._parameters = parameters
        self._table = table
        self._selectable = selectable
        self._term = term

    def bound(self) -> BoundTerm:
        """Return the term bound to its column."""
        term = self._term
        column = self._table.column(term.column)
        if column is None or term.column not in self._selectable:
            self._refuse(f"invalid column for filter {term.column}")
        if not self._table.is_streamed(column):
            self._refuse(
                f"a filter on column {term.column} can not be decided: "
                "the publication does not carry its values"
            )
        if term.operator is FilterOperator.IS:
            return self._bound_is(column)
        if term.operator in PATTERN_OPERATORS:
            return self._bound_pattern(column)
        if term.operator is FilterOperator.IN:
            return self._bound_in(column)
        return self._bound_comparison(column)

    def _bound_is(self, column: ColumnDescription) -> BoundTerm:
        term = self._term
        if term.value not in _IS_KEYWORDS:
            self._refuse("invalid value for is filter: must be null, true, false, or unknown")
        if term.value != "null" and not is_boolean(column.type):
            self._refuse(
                f"is {term.value} filter requires a boolean column, got {column.type.display_name}"
            )
        # IS NULL of a composite value looks at its attributes: left to PostgreSQL.
        is_composite = column.type.resolved.kind is TypeKind.COMPOSITE
        canonical = None if is_composite else (term.value,)
        return self._term_of(column, canonical=canonical)

    def _bound_pattern(self, column: ColumnDescription) -> BoundTerm:
        term = self._term
        name = term.operator.value
        if not _has_patterns(column.type.resolved, term.operator):
            self._refuse(
                f"operator {name} requires a text-compatible column type, "
                f"got {column.type.display_name}"
            )
        if not column.collation_is_deterministic:
            self._refuse(f"operator {name} requires a deterministic collation")
        if len(term.value) > limits.FILTER_PATTERN_CHARACTERS_MAX:
            self._refuse(
                f"pattern for {name} filter is longer than "
                f"{limits.FILTER_PATTERN_CHARACTERS_MAX} characters"
            )
        if term.operator not in REGEX_OPERATORS and _ends_in_escape(term.value):
            self._raise(
                "22025",
                "invalid_escape_sequence",
                "LIKE pattern must not end with escape character",
            )
        return self._term_of(column)

    def _bound_in(self, column: ColumnDescription) -> BoundTerm:
        if column.type.resolved.kind is TypeKind.ARRAY:
            self._refuse(
                "operator in requires a column that is not an array, "
                f"got {column.type.display_name}"
            )
        try:
            elements = tuple(flattened(parse_array(self._term.value)))
        except ValueError:
            self._raise(
                "22P02",
                "invalid_text_representation",
                f'malformed array literal: "{self._term.value}"',
            )
        if len(elements) > limits.FILTER_IN_VALUES_MAX:
            self._refuse(f"too many values for `in` filter. Maximum {limits.FILTER_IN_VALUES_MAX}")
        comparison = comparison_of(column)
        canonical = self._canonical(comparison, elements) if elements else ()
        return self._term_of(column, elements=elements, canonical=canonical)

    def _bound_comparison(self, column: ColumnDescription) -> BoundTerm:
        term = self._term
        comparison = comparison_of(column)
        canonical = self._canonical(comparison, (term.value,))
        if comparison is None or (term.operator in ORDER_OPERATORS and not comparison.is_ordered):
            canonical = None
        return self._term_of(column, canonical=canonical)

    def _canonical(
        self, comparison: Comparison | None, constants: tuple[str | None, ...]
    ) -> tuple[str | None, ...] | None:
        if comparison is None:
            return None
        texts: list[str | None] = []
        complete = True
        for constant in constants:
            canonical = None if constant is None else comparison.canonical(constant)
            if isinstance(canonical, ConstantFault):
                self._raise(canonical.sqlstate, canonical.condition, canonical.text)
            complete = complete and (constant is None or canonical is not None)
            texts.append(canonical)
        return tuple(texts) if complete else None

    def _term_of(
        self,
        column: ColumnDescription,
        *,
        elements: tuple[str | None, ...] = (),
        canonical: tuple[str | None, ...] | None = None,
    ) -> BoundTerm:
        term = self._term
        return BoundTerm(column, term.operator, term.negated, term.value, elements, canonical)

    def _refuse(self, text: str) -> NoReturn:
        raise raised_by_check(self._parameters, text)

    def _raise(self, sqlstate: str, condition: str, text: str) -> NoReturn:
        raise raised(self._parameters, f"ERROR {sqlstate} ({condition}) {text}")


def _has_patterns(resolved: TypeDescription, operator: FilterOperator) -> bool:
    if not resolved.is_builtin:
        return resolved.kind is TypeKind.BASE and resolved.name == "citext"
    if resolved.name == "bytea":
        return operator is FilterOperator.LIKE
    return resolved.name in _PATTERN_TYPES


def _ends_in_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1
