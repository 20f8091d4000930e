"""Types whose values Python compares exactly, and the canonical form of their constants.

A closed list (`visibility.md` §5): integers, uuid, bool, text and varchar under a deterministic
collation, enums, numeric, date and both timestamps. For everything else, and for every way to
write a constant that is not read here, the answer is "PostgreSQL judges".

Row values are the text that PostgreSQL prints with ``DateStyle = ISO``; a value in another form
has no key, so nothing is decided from it.
Source: https://www.postgresql.org/docs/current/datatype.html and the input functions int4in,
boolin, uuid_in, numeric_in of PostgreSQL 15 to 18.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from heliograph.core.matching.table_description import (
    ColumnDescription,
    TypeDescription,
    TypeKind,
)

#: What PostgreSQL's input functions call a blank (``isspace`` in the C locale).
_BLANKS: Final = " \t\n\v\f\r"

#: Seconds, minutes and hours in microseconds; every moment becomes one integer.
_SECOND_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _SECOND_US
_HOUR_US: Final = 60 * _MINUTE_US
_DAY_US: Final = 24 * _HOUR_US


@dataclass(frozen=True, slots=True)
class ConstantFault:
    """A constant that PostgreSQL would certainly not accept.

    Attributes:
        sqlstate: PostgreSQL's error code.
        condition: The code's name.
        text: PostgreSQL's message.
    """

    sqlstate: str
    condition: str
    text: str


#: The canonical text; or the fault; or None: PostgreSQL has to look at it.
Canonical = str | ConstantFault | None

#: Makes values comparable by ``==``, ``<`` and hash; None for a text of an unexpected form.
KeyFunction = Callable[[str], object | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How values of one type are compared in Python.

    Attributes:
        canonical: Reads a constant as the type's input function does.
        key: Makes a canonical text or a row value comparable.
        is_text: Whether two values are equal exactly when their texts are; ``key`` is then needed
            for order only.
        is_ordered: Whether keys have PostgreSQL's order.
        is_checked: Whether ``canonical`` proves that PostgreSQL accepts the constant.
    """

    canonical: Callable[[str], Canonical]
    key: KeyFunction
    is_text: bool
    is_ordered: bool
    is_checked: bool = True


def comparison_of(column: ColumnDescription) -> Comparison | None:
    """Return how Python compares the column's values; None if PostgreSQL has to."""
    described = column.type
    while described.base is not None:
        if described.has_own_operators:
            return None
        described = described.base
    if described.kind is TypeKind.ENUM:
        return None if described.has_own_operators else _ENUM
    if described.kind is not TypeKind.BASE or not described.is_builtin:
        return None
    if described.name in _TEXT_TYPES and not column.collation_is_deterministic:
        return None
    return _COMPARISONS.get(described.name)


def is_boolean(described: TypeDescription) -> bool:
    """Tell whether the type is ``boolean`` or a domain over it."""
    resolved = described.resolved
    return resolved.is_builtin and resolved.name == "bool"


# --- Integers ------------------------------------------------------------------------------

_INTEGER: Final = re.compile(rf"[{_BLANKS}]*([+-]?[0-9]+)[{_BLANKS}]*")
#: PostgreSQL 16 and later read 0x1F, 0o17, 0b1 and 1_000; the versions before refuse them.
_NEW_NOTATION: Final = re.compile(r"[xXoObB_]")


def _integer_canonical(name: str, bits: int) -> Callable[[str], Canonical]:
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def canonical(text: str) -> Canonical:
        match = _INTEGER.fullmatch(text)
        if match is None:
            return None if _NEW_NOTATION.search(text) else _invalid(name, text)
        digits = match[1]
        if len(digits.lstrip("+-").lstrip("0")) > len(str(highest)):
            return _out_of_range(name, text)
        value = int(digits)
        return str(value) if lowest <= value <= highest else _out_of_range(name, text)

    return canonical


def _out_of_range(name: str, text: str) -> ConstantFault:
    return ConstantFault(
        "22003",
        "numeric_value_out_of_range",
        f'value "{text}" is out of range for type {name}',
    )


def _invalid(name: str, text: str) -> ConstantFault:
    return ConstantFault(
        "22P02",
        "invalid_text_representation",
        f'invalid input syntax for type {name}: "{text}"',
    )


# --- Booleans, uuid, text ------------------------------------------------------------------

#: Every spelling that parse_bool accepts, unique prefixes included.
_BOOLEANS: Final = {
    **dict.fromkeys(("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"), "t"),
    **dict.fromkeys(("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"), "f"),
}
_UUID: Final = re.compile(r"(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}")


def _boolean_canonical(text: str) -> Canonical:
    word = text.strip(_BLANKS)
    known = _BOOLEANS.get(word.lower()) if word.isascii() else None
    return _invalid("boolean", text) if known is None else known


def _uuid_canonical(text: str) -> Canonical:
    digits = text.lower() if text.isascii() else ""
    if digits.startswith("{") and digits.endswith("}"):
        digits = digits[1:-1]
    if _UUID.fullmatch(digits) is None:
        return _invalid("uuid", text)
    plain = digits.replace("-", "")
    return f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"


def _as_it_is(text: str) -> str:
    return text


# --- Numeric -------------------------------------------------------------------------------

_NUMERIC: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
#: A longer constant is left to PostgreSQL, whose bounds on digits apply to it.
_NUMERIC_CHARACTERS_MAX: Final = 1_000
_INFINITY: Final = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE | re.ASCII)


def _numeric_canonical(text: str) -> Canonical:
    word = text.strip(_BLANKS)
    if len(word) > _NUMERIC_CHARACTERS_MAX:
        return None
    if _NUMERIC.fullmatch(word):
        return word
    if word.lower() == "nan":
        return "NaN"
    infinity = _INFINITY.fullmatch(word)
    if infinity is not None:
        return "-Infinity" if infinity[1] == "-" else "Infinity"
    # What remains may be the notation of newer versions or an exponent beyond ours.
    return None


def _numeric_key(text: str) -> object:
    # PostgreSQL: NaN equals NaN and is greater than everything else, Infinity included.
    return (True, _ZERO) if text == "NaN" else (False, Decimal(text))


_ZERO: Final = Decimal(0)

# --- Moments -------------------------------------------------------------------------------

_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]"
    r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(\.[0-9]{1,6})?"
)
_OFFSET: Final = re.compile(r"[zZ]|([+-])(0[0-9]|1[0-4])(?::?([0-5][0-9]))?")

#: What PostgreSQL prints: a year of four digits or more, an offset of up to seconds, an era.
_PRINTED: Final = re.compile(
    r"([0-9]{4,})-([0-9]{2})-([0-9]{2})"
    r"(?: ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?)?"
    r"(?:([+-])([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}))?)?)?"
    r"( BC)?"
)
_ENDLESS: Final = {"infinity": float("inf"), "-infinity": float("-inf")}


def _date_canonical(text: str) -> Canonical:
    if text in _ENDLESS:
        return text
    match = _DATE.fullmatch(text)
    return text if match is not None and _is_date(match) else None


def _timestamp_canonical(text: str) -> Canonical:
    if text in _ENDLESS:
        return text
    match = _TIMESTAMP.fullmatch(text)
    if match is None or not _is_date(match):
        return None
    return text.replace("T", " ")


def _timestamptz_canonical(text: str) -> Canonical:
    if text in _ENDLESS:
        return text
    match = _TIMESTAMP.match(text)
    if match is None or not _is_date(match):
        return None
    offset = _OFFSET.fullmatch(text, match.end())
    if offset is None:
        return None
    sign, hours, minutes = offset[1] or "+", offset[2] or "00", offset[3] or "00"
    return f"{match[0].replace('T', ' ')}{sign}{hours}:{minutes}"


def _is_date(match: re.Match[str]) -> bool:
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    return True


def _moment_key(text: str) -> object | None:
    """Return microseconds since 1970-01-01 UTC, or an infinity; exact for every year."""
    match = _PRINTED.fullmatch(text)
    if match is None:
        return _ENDLESS.get(text)
    year = int(match[1])
    moment = _days(1 - year if match[12] else year, int(match[2]), int(match[3])) * _DAY_US
    if match[4] is not None:
        moment += int(match[4]) * _HOUR_US + int(match[5]) * _MINUTE_US + int(match[6]) * _SECOND_US
        moment += int((match[7] or "").ljust(6, "0"))
    if match[8] is not None:
        offset = int(match[9]) * _HOUR_US
        offset += int(match[10] or 0) * _MINUTE_US + int(match[11] or 0) * _SECOND_US
        moment += offset if match[8] == "-" else -offset
    return moment


def _days(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 in the proleptic Gregorian calendar (year 0 is 1 BC).

    Source: Howard Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
    """
    shifted = year - (month <= 2)  # noqa: PLR2004  (the year is taken to begin in March)
    era, year_of_era = divmod(shifted, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return (
        era * 146_097
        + year_of_era * 365
        + year_of_era // 4
        - year_of_era // 100
        + (day_of_year - 719_468)
    )


#: Labels are compared as they are; whether one exists only the catalog knows. Their order too.
_ENUM: Final = Comparison(_as_it_is, _as_it_is, is_text=True, is_ordered=False, is_checked=False)
_TEXT: Final = Comparison(_as_it_is, _as_it_is, is_text=True, is_ordered=False)
_TEXT_TYPES: Final = frozenset({"text", "varchar"})
_COMPARISONS: Final = {
    "int2": Comparison(_integer_canonical("smallint", 16), int, is_text=True, is_ordered=True),
    "int4": Comparison(_integer_canonical("integer", 32), int, is_text=True, is_ordered=True),
    "int8": Comparison(_integer_canonical("bigint", 64), int, is_text=True, is_ordered=True),
    "bool": Comparison(_boolean_canonical, _as_it_is, is_text=True, is_ordered=False),
    "uuid": Comparison(_uuid_canonical, _as_it_is, is_text=True, is_ordered=False),
    "text": _TEXT,
    "varchar": _TEXT,
    "numeric": Comparison(_numeric_canonical, _numeric_key, is_text=False, is_ordered=True),
    "date": Comparison(_date_canonical, _moment_key, is_text=False, is_ordered=True),
    "timestamp": Comparison(_timestamp_canonical, _moment_key, is_text=False, is_ordered=True),
    "timestamptz": Comparison(_timestamptz_canonical, _moment_key, is_text=False, is_ordered=True),
}
