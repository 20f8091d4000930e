r"""The grammar of a ``filter`` string: terms joined by AND.

    id=gt.0,name=not.in.("a,b",c),note=eq."x, \"y\""

A term is ``column=[not.]operator.value``. Commas in parentheses or double quotes do not separate;
a quote opens only right after a dot, an opening parenthesis or a comma inside parentheses; within
quotes a backslash takes the next character as it is. A quote that is never closed, or that does
not end its value, is an ordinary character. The value is not looked at: what it means depends on
the column (`filters`).
Source: protocol §10.5; Supabase Realtime since July 2026.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn

from heliograph import limits
from heliograph.core.matching.inspected import inspected
from heliograph.errors import SubscriptionRefusedError


class FilterOperator(Enum):
    """What a term asks; the value is its name on the wire."""

    EQ = "eq"
    NEQ = "neq"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    LIKE = "like"
    ILIKE = "ilike"
    IS = "is"
    MATCH = "match"
    IMATCH = "imatch"
    ISDISTINCT = "isdistinct"


@dataclass(frozen=True, slots=True)
class FilterTerm:
    """One condition, not yet bound to a table.

    Attributes:
        column: The column's name as written.
        operator: What is asked.
        value: The constant, unquoted; for ``in`` an array literal (``(a,b)`` became ``{a,b}``).
        negated: Whether ``not.`` stood before the operator.
    """

    column: str
    operator: FilterOperator
    value: str
    negated: bool = False


_OPERATORS: Final = {operator.value: operator for operator in FilterOperator}
_OPENS_QUOTE: Final = frozenset(".(,")
_NOT_STORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")


def parse_filter(text: str) -> tuple[FilterTerm, ...]:
    """Read a filter string.

    Returns:
        Its terms in order; empty if it holds only blanks.

    Raises:
        SubscriptionRefusedError: With the protocol's text, if it breaks the grammar or a bound.
    """
    if len(text) > limits.FILTER_BYTES_MAX or len(text.encode(errors="replace")) > (
        limits.FILTER_BYTES_MAX
    ):
        _refuse(f"filter must not be longer than {limits.FILTER_BYTES_MAX} bytes")
    if not is_storable(text):
        _refuse("filter must not contain NUL characters or unpaired surrogates")
    trimmed = text.strip()
    if not trimmed:
        return ()
    segments = _split(trimmed)
    if len(segments) > limits.FILTER_TERMS_MAX:
        _refuse(f"filter must not have more than {limits.FILTER_TERMS_MAX} terms")
    return tuple([_parse_term(segment.strip()) for segment in segments])


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold the text: no NUL, no unpaired surrogate."""
    return _NOT_STORABLE.search(text) is None


def _split(text: str) -> list[str]:
    segments: list[str] = []
    start = depth = 0
    quoted = escaped = False
    previous = ""
    for index, symbol in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped = symbol == "\\"
            quoted = symbol != '"'
        elif symbol == '"':
            quoted = previous in _OPENS_QUOTE
        elif symbol in "()":
            depth = max(0, depth + (1 if symbol == "(" else -1))
        elif symbol == "," and depth == 0:
            segments.append(text[start:index])
            start = index + 1
            symbol = ""  # noqa: PLW2901  (a separator opens no quote after it)
        previous = symbol
    segments.append(text[start:])
    return segments


def _parse_term(segment: str) -> FilterTerm:
    if not segment:
        _refuse("filter must not contain empty segments (check for extra commas)")
    column, equals, rest = segment.partition("=")
    if not equals:
        _refuse(inspected([segment]))
    negated = rest.startswith("not.")
    rest = rest.removeprefix("not.")
    name, dot, value = rest.partition(".")
    if not dot:
        _refuse(inspected([rest]))
    operator = _OPERATORS.get(name)
    if operator is None:
        _refuse(inspected([name, value]))
    if operator is FilterOperator.IN:
        return FilterTerm(column, operator, _array_literal(value), negated)
    return FilterTerm(column, operator, _unquoted(value), negated)


def _array_literal(value: str) -> str:
    if not (value.startswith("(") and value.endswith(")")):
        _refuse("`in` filter value must be wrapped by parentheses")
    return f"{{{value[1:-1]}}}"


_WHOLLY_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def _unquoted(value: str) -> str:
    match = _WHOLLY_QUOTED.fullmatch(value)
    return value if match is None else _ESCAPE.sub(r"\1", match[1])


def _refuse(reason: str) -> NoReturn:
    message = f"Error parsing `filter` params: {reason}"
    raise SubscriptionRefusedError(message)
