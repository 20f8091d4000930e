"""JSON objects of tokens, read strictly and with bounds.

Two readers of one text must not see two things, because one of them decides and the other acts:
so a key that occurs twice is refused, as are NaN and Infinity (not JSON), numbers that would
overflow, and characters that PostgreSQL's jsonb can not hold (RFC 8259 allows some of that; I-JSON,
RFC 7493, does not).
"""

import json
import math
from collections.abc import Mapping
from typing import Final, Never, cast

import msgspec

from heliograph.core.tokens.refusals import malformed
from heliograph.limits import JSON_DEPTH_MAX

_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1

#: Characters of the longest 64-bit integer with its sign.
_INTEGER_CHARACTERS_MAX: Final = 20


def decode_object(content: bytes) -> dict[str, object]:
    """Decode one JSON object in UTF-8.

    Raises:
        TokenError: If it is not one, is nested deeper than `JSON_DEPTH_MAX`, repeats a key, or
            holds a number or a character that has no place in jsonb.
    """
    try:
        text = content.decode("utf-8", errors="strict")
        # Counted first: the decoder recurses, and may end the process before it ends itself.
        if _depth_of(text) > JSON_DEPTH_MAX:
            raise malformed()
        value: object = json.loads(
            text,
            object_pairs_hook=_object_of,
            parse_constant=_refuse,
            parse_float=_float_of,
            parse_int=_integer_of,
        )
    except ValueError as error:  # also UnicodeDecodeError and JSONDecodeError
        raise malformed() from error
    if not isinstance(value, dict):
        raise malformed()
    members = cast("dict[str, object]", value)
    _refuse_foreign_characters(members)
    return members


def encode_object(value: Mapping[str, object]) -> str:
    """Encode what `decode_object` has accepted as JSON text that jsonb accepts."""
    return msgspec.json.encode(value).decode()


def _depth_of(text: str) -> int:
    depth = deepest = 0
    in_string = is_escaped = False
    for character in text:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif character == "\\":
                is_escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise malformed()
    return value


def _refuse(_constant: str) -> Never:
    raise malformed()


def _float_of(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise malformed()
    return value


def _integer_of(text: str) -> int:
    # The length first: converting thousands of digits costs time quadratic in their number.
    if len(text) > _INTEGER_CHARACTERS_MAX or not _INTEGER_MIN <= int(text) <= _INTEGER_MAX:
        raise malformed()
    return int(text)


def _refuse_foreign_characters(value: object) -> None:
    """Refuse U+0000 and lone surrogates, in keys and values; the depth is bounded already."""
    match value:
        case str():
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise malformed()
        case dict():
            for key, item in cast("dict[str, object]", value).items():
                _refuse_foreign_characters(key)
                _refuse_foreign_characters(item)
        case list():
            for item in cast("list[object]", value):
                _refuse_foreign_characters(item)
        case _:
            pass
