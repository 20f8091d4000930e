"""Values in the notation of Elixir, which the texts of the reference quote.

Supabase Realtime repeats a client's parameters in its error texts as Elixir prints them
(``["foo", "hey"]``, ``%{"table" => nil}``, ``{"id", "eq", "1", false}``); people search for these
texts, so ours have the same form. Bounded: a client can not make us repeat a megabyte.
"""

import re
from collections.abc import Mapping
from typing import Final, cast

from heliograph import limits

_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\0": "\\0",
    "\a": "\\a",
    "\b": "\\b",
    "\x1b": "\\e",
    "\f": "\\f",
    "\v": "\\v",
    "#{": "\\#{",
}
_SPECIAL: Final = re.compile(r'#\{|["\\]|[\x00-\x1f\x7f-\x9f\ud800-\udfff]')

#: Nested lists and maps below this depth are shown as ``...``.
_DEPTH_MAX: Final = 6


def inspected(value: object) -> str:
    """Write a value as Elixir's ``inspect`` does.

    Args:
        value: Decoded JSON, or tuples of it.

    Returns:
        At most ERROR_ECHO_CHARACTERS_MAX characters; a longer text is cut and ends in ``…``.
    """
    return shortened(_inspected(value, 0))


def shortened(text: str) -> str:
    """Cut a text to ERROR_ECHO_CHARACTERS_MAX: a client can not make us repeat a megabyte."""
    if len(text) <= limits.ERROR_ECHO_CHARACTERS_MAX:
        return text
    return text[: limits.ERROR_ECHO_CHARACTERS_MAX] + "…"


def _inspected(value: object, depth: int) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{_SPECIAL.sub(_escaped, value)}"'
        case list() | tuple() | Mapping():
            return "..." if depth > _DEPTH_MAX else _collection(cast("_Collection", value), depth)
        case _:
            return str(value)


_Collection = list[object] | tuple[object, ...] | Mapping[object, object]


def _collection(value: _Collection, depth: int) -> str:
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        members = [f"{_inspected(k, depth + 1)} => {_inspected(v, depth + 1)}" for k, v in pairs]
        return f"%{{{', '.join(members)}}}"
    members = [_inspected(member, depth + 1) for member in value]
    joined = ", ".join(members)
    return f"[{joined}]" if isinstance(value, list) else f"{{{joined}}}"


def _escaped(match: re.Match[str]) -> str:
    found = match[0]
    escape = _ESCAPES.get(found)
    if escape is not None:
        return escape
    return f"\\x{ord(found):02X}" if ord(found) <= 0xFF else f"\\x{{{ord(found):X}}}"  # noqa: PLR2004  (0xFF: two hexadecimal digits)
