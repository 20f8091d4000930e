r"""PostgreSQL's text of one value turned into what its JSON shows.

The rules of protocol §10.2: what ``to_jsonb`` makes of the value, with the reference's exceptions
for a column itself (NaN and infinite numbers are null, bytea is hex without ``\x``) and ours
(every bit of a ``bit(n)``, every character of a ``char(n)`` without its padding).

A presenter takes the text that the WAL carried (session settings ``DateStyle=ISO``,
``TimeZone=UTC``, ``IntervalStyle=postgres``, ``bytea_output=hex``) and returns something that
msgspec encodes: text and whole numbers as they are, everything exact or already JSON as `Raw`.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Final

from msgspec import Raw

from heliograph.core.matching.array_literal import ArrayItem, parse_array, parse_composite
from heliograph.core.matching.table_description import TypeDescription, TypeKind

#: Makes a text presentable; None where the text itself is the JSON string.
Presenter = Callable[[str], object] | None

_BOOLEANS: Final = {"t": True, "f": False}
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_VECTORS: Final = frozenset({"int2vector", "oidvector"})


def presenter_of(described: TypeDescription) -> Presenter:
    """Return how the values of a column of this type are shown; domains by the type below."""
    resolved = described.resolved
    if resolved.is_builtin and resolved.kind is TypeKind.BASE:
        known = _COLUMN_PRESENTERS.get(resolved.name)
        if known is not None:
            return known
    return _nested_presenter(resolved)


def _nested_presenter(described: TypeDescription) -> Presenter:
    """Return how an element or attribute of this type is shown: as ``to_jsonb`` does."""
    resolved = described.resolved
    if resolved.kind is TypeKind.ARRAY and resolved.element is not None:
        return _array_presenter(resolved, resolved.element)
    if resolved.kind is TypeKind.COMPOSITE:
        return partial(_composite, _attribute_presenters(resolved))
    if resolved.is_builtin and resolved.kind is TypeKind.BASE:
        return _NESTED_PRESENTERS.get(resolved.name)
    return None


# --- Scalars -------------------------------------------------------------------------------


def _numeric(text: str) -> Raw | None:
    return None if text in _NOT_FINITE else Raw(text.encode())


def _nested_numeric(text: str) -> Raw | str:
    return text if text in _NOT_FINITE else Raw(text.encode())


def _float(text: str) -> Raw | None:
    return None if text in _NOT_FINITE else _written_out(text)


def _nested_float(text: str) -> Raw | str:
    return text if text in _NOT_FINITE else _written_out(text)


def _written_out(text: str) -> Raw:
    # jsonb keeps numbers as numeric: no exponent, no negative zero.
    if "e" in text:
        return Raw(format(Decimal(text), "f").encode())
    return Raw(b"0" if text == "-0" else text.encode())


def _timestamp(text: str) -> str:
    return text.replace(" ", "T", 1) if text[0].isdigit() else text


_ZONED: Final = re.compile(r"(\S+) ([0-9:.]+)([+-][0-9]{2})((?::[0-9]{2}){0,2})(.*)")


def _timestamptz(text: str) -> str:
    if text.endswith("+00"):
        return f"{text[:-3].replace(' ', 'T', 1)}+00:00"
    match = _ZONED.fullmatch(text)
    if match is None:  # infinity
        return text
    day, time, hours, rest, era = match.groups()
    return f"{day}T{time}{hours}{rest or ':00'}{era}"


def _bytea(text: str) -> str:
    return text.removeprefix("\\x")


def _padded(text: str) -> str:
    return text.rstrip(" ")


def _jsonb(text: str) -> Raw:
    return Raw(text.encode())


def _json(text: str) -> Raw:
    # Kept as it was written, but on one line; inside strings JSON has no raw line breaks. Halves
    # of surrogate pairs, which `json` accepts and strict parsers do not, become U+FFFD.
    if "\n" in text or "\r" in text:
        text = text.replace("\r", " ").replace("\n", " ")
    if "\\ud" in text or "\\uD" in text:
        text = _SURROGATES.sub(_whole, text)
    return Raw(text.encode())


#: A pair of surrogates, half of one, or any other escape (so that ``\\\\ud800`` is none).
_SURROGATES: Final = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)


def _whole(match: re.Match[str]) -> str:
    return "\\ufffd" if match["half"] else match[0]


# --- Arrays and composite values -----------------------------------------------------------


def _array_presenter(array: TypeDescription, element: TypeDescription) -> Presenter:
    shown = _nested_presenter(element)
    if array.is_builtin and array.name in _VECTORS:
        return partial(_vector, shown)
    return partial(_array, array.element_delimiter, shown)


def _array(delimiter: str, shown: Presenter, text: str) -> object:
    return _items(parse_array(text, delimiter), shown)


def _vector(shown: Presenter, text: str) -> object:
    return _items(list(text.split()), shown)


def _items(items: list[ArrayItem], shown: Presenter) -> list[object]:
    if shown is None and not any(isinstance(item, list) for item in items):
        return list(items)
    return [_item(item, shown) for item in items]


def _item(item: ArrayItem, shown: Presenter) -> object:
    if isinstance(item, list):
        return _items(item, shown)
    return item if item is None or shown is None else shown(item)


def _attribute_presenters(described: TypeDescription) -> Mapping[str, Presenter]:
    return {attribute.name: _nested_presenter(attribute.type) for attribute in described.attributes}


def _composite(attributes: Mapping[str, Presenter], text: str) -> object:
    if not attributes:
        return {}
    texts = parse_composite(text)
    return {
        name: _item(value, shown)
        for (name, shown), value in zip(attributes.items(), texts, strict=True)
    }


_NESTED_PRESENTERS: Final[Mapping[str, Presenter]] = {
    "int2": int,
    "int4": int,
    "int8": int,
    "bool": _BOOLEANS.__getitem__,
    "numeric": _nested_numeric,
    "float4": _nested_float,
    "float8": _nested_float,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "json": _json,
    "jsonb": _jsonb,
    "bpchar": _padded,
}
_COLUMN_PRESENTERS: Final[Mapping[str, Presenter]] = {
    "numeric": _numeric,
    "float4": _float,
    "float8": _float,
    "bytea": _bytea,
}
