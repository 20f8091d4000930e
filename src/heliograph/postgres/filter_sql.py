"""Filter terms as SQL: what PostgreSQL judges, and what it must accept at the join.

An expression stands in the select list over ``unnest(%s::text[]::"schema"."table"[]) as "row"``
and answers true, false or NULL. Identifiers come from the catalog and are quoted; constants are
bound as text and cast to the column's type. Operators are named with their schema, so that no
operator of somebody else's schema is found first; only a domain or an enum for which operators of
its own are declared is compared as a query of the role would do it.

Every statement made here must be executed with parameters: psycopg then reads ``%%`` as ``%``.
Source: https://www.postgresql.org/docs/current/sql-expressions.html#SQL-EXPRESSIONS-OPERATOR-CALLS
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import AsyncConnection, errors, sql

from heliograph.core.matching.binding_parameters import raised, raised_by_check
from heliograph.core.matching.filter_parser import FilterOperator
from heliograph.core.matching.filters import (
    PATTERN_OPERATORS,
    REGEX_OPERATORS,
    BoundParameters,
    BoundTerm,
)
from heliograph.core.matching.table_description import (
    CATALOG_SCHEMA,
    ColumnDescription,
    TypeDescription,
    TypeKind,
)

#: What a parameter of a filter expression may be.
FilterParameter = str | list[str]

_SYMBOLS: Final = {
    FilterOperator.EQ: sql.SQL("="),
    FilterOperator.NEQ: sql.SQL("<>"),
    FilterOperator.LT: sql.SQL("<"),
    FilterOperator.LTE: sql.SQL("<="),
    FilterOperator.GT: sql.SQL(">"),
    FilterOperator.GTE: sql.SQL(">="),
    FilterOperator.IN: sql.SQL("="),
    FilterOperator.ISDISTINCT: sql.SQL("="),
    FilterOperator.LIKE: sql.SQL("~~"),
    FilterOperator.ILIKE: sql.SQL("~~*"),
    FilterOperator.MATCH: sql.SQL("~"),
    FilterOperator.IMATCH: sql.SQL("~*"),
}
_KEYWORDS: Final = {
    "null": sql.SQL("null"),
    "true": sql.SQL("true"),
    "false": sql.SQL("false"),
    "unknown": sql.SQL("unknown"),
}
_TEXT: Final = sql.Identifier(CATALOG_SCHEMA, "text")

#: Error classes that a constant or an operator itself causes: data exception, syntax error or
#: access rule violation (no such operator), feature not supported.
_REFUSED_CLASSES: Final = frozenset({"22", "42", "0A"})


@dataclass(frozen=True, slots=True)
class FilterExpression:
    """One term as SQL.

    Attributes:
        expression: A boolean expression with one ``%s`` per parameter.
        parameters: Its constants, in order.
    """

    expression: sql.Composed
    parameters: tuple[FilterParameter, ...]


def identifier(*names: str) -> sql.Identifier:
    """Quote a name for a statement that is executed with parameters.

    psycopg looks for placeholders in the finished text, quoted names included: a column called
    ``50%`` must reach it as ``50%%``.
    """
    return sql.Identifier(*[name.replace("%", "%%") for name in names])


def filter_expression(term: BoundTerm, alias: str) -> FilterExpression:
    """Write one term for the rows of a relation in the FROM clause.

    Args:
        term: The term; its constants must have been accepted (`refuse_invalid_terms`).
        alias: Name under which FROM makes the row's columns known.
    """
    return _expression(term, identifier(alias, term.column.name))


async def refuse_invalid_terms(
    connection: AsyncConnection[tuple[object, ...]], bound: BoundParameters
) -> None:
    """Let PostgreSQL read the constants that Python could not prove.

    Each marked term is evaluated once, on NULL or on an empty text: the constant is cast, the
    operator looked up, the regular expression compiled. Nothing is read from any table. The
    caller bounds it with a statement timeout, and must roll the transaction back when it raises.

    Args:
        connection: In a transaction of the subscriber's role.
        bound: The entry.

    Raises:
        SubscriptionRefusedError: With PostgreSQL's message in the protocol's form.
        psycopg.Error: If the statement failed for a reason that the constant did not cause.
    """
    for term in bound.needs_postgres_check:
        check = check_query(term)
        try:
            await connection.execute(check.expression, check.parameters)
        except psycopg.Error as cause:
            code = cause.sqlstate or ""
            if code[:2] not in _REFUSED_CLASSES:
                raise
            text = cause.diag.message_primary or ""
            if (
                term.operator in REGEX_OPERATORS
                and code == errors.InvalidRegularExpression.sqlstate
            ):
                kind = term.operator.value
                message = f"invalid regular expression for {kind} filter: {text}"
                raise raised_by_check(bound.parameters, message) from cause
            raise raised(bound.parameters, f"ERROR {code} ({_condition(code)}) {text}") from cause


def check_query(term: BoundTerm) -> FilterExpression:
    """Write the statement that fails exactly when PostgreSQL does not accept the term.

    NULL (for a regular expression: an empty text) stands in the column's place. The constant is
    a result of its own: an operator on NULL is folded away together with a constant whose cast is
    only stable, as that of ``timestamptz`` is.
    """
    operand = _operand_type(term.column)
    probe = sql.SQL("''") if term.operator in REGEX_OPERATORS else sql.SQL("null")
    tested = _expression(term, sql.SQL("{}::{}").format(probe, _type_name(operand)))
    query = sql.SQL("select {} is null, {}").format(_constant(term, operand), tested.expression)
    return FilterExpression(query, tested.parameters * 2)


def _expression(term: BoundTerm, place: sql.Composable) -> FilterExpression:
    operand = _operand_type(term.column)
    if operand is not term.column.type:
        place = sql.SQL("{}::{}").format(place, _type_name(operand))
    if term.operator is FilterOperator.IS:
        keyword = _KEYWORDS[term.value]
        form = sql.SQL("({} is not {})") if term.negated else sql.SQL("({} is {})")
        return FilterExpression(form.format(place, keyword), ())
    if term.operator is FilterOperator.IN:
        return _in_expression(term, place, operand)
    compared = sql.SQL("({} {} {})").format(
        place, _operator(term, operand), _constant(term, operand)
    )
    if term.operator is FilterOperator.ISDISTINCT:
        # IS DISTINCT FROM takes no schema for its operator. The constant is never NULL.
        form = sql.SQL("({} is true)") if term.negated else sql.SQL("({} is not true)")
        return FilterExpression(form.format(compared), (term.value,))
    return FilterExpression(_negated(compared, term), (term.value,))


def _in_expression(
    term: BoundTerm, place: sql.Composable, operand: TypeDescription
) -> FilterExpression:
    constants = [element for element in term.elements if element is not None]
    member = sql.SQL("({} {} any ({}))").format(
        place, _operator(term, operand), _constant(term, operand)
    )
    if len(constants) < len(term.elements):
        # With NULL in the list the answer is true or NULL, never false.
        member = sql.SQL("nullif({}, false)").format(member)
    return FilterExpression(_negated(member, term), (constants,))


def _negated(expression: sql.Composed, term: BoundTerm) -> sql.Composed:
    return sql.SQL("(not {})").format(expression) if term.negated else expression


def _constant(term: BoundTerm, operand: TypeDescription) -> sql.Composed:
    suffix = sql.SQL("[]" if term.operator is FilterOperator.IN else "")
    return sql.SQL("{}::{}{}::{}{}").format(
        sql.Placeholder(), _TEXT, suffix, _constant_type(term, operand), suffix
    )


def _operand_type(column: ColumnDescription) -> TypeDescription:
    # A domain is compared by the type below, unless somebody declared operators for it.
    described = column.type
    while described.base is not None and not described.has_own_operators:
        described = described.base
    return described


def _constant_type(term: BoundTerm, operand: TypeDescription) -> sql.Composable:
    # Patterns are text: only bytea and types of extensions have patterns of their own type.
    if term.operator in PATTERN_OPERATORS and operand.is_builtin and operand.name != "bytea":
        return _TEXT
    return _type_name(operand)


def _type_name(described: TypeDescription) -> sql.Composable:
    # Quoted names carry no type modifier: "pg_catalog"."bit" keeps every bit, "bpchar" every blank.
    return identifier(described.schema, described.name)


def _operator(term: BoundTerm, operand: TypeDescription) -> sql.Composable:
    symbol = _SYMBOLS[term.operator]
    if operand.has_own_operators:
        return symbol
    # Arrays, enums, ranges and composite values have PostgreSQL's polymorphic operators; a base
    # type of an extension brings its own, in the schema that it was installed in.
    is_foreign = operand.kind is TypeKind.BASE and not operand.is_builtin
    schema = operand.schema if is_foreign else CATALOG_SCHEMA
    return sql.SQL("operator({}.{})").format(identifier(schema), symbol)


_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")


def _condition(sqlstate: str) -> str:
    """Return PostgreSQL's name of an error code, ``invalid_text_representation``."""
    try:
        return _WORD.sub("_", errors.lookup(sqlstate).__name__).lower()
    except KeyError:
        return "unknown_condition"


def expressions(terms: Sequence[BoundTerm], alias: str) -> tuple[FilterExpression, ...]:
    """Write several terms, in order."""
    return tuple([filter_expression(term, alias) for term in terms])
