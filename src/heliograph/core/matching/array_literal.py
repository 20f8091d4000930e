"""PostgreSQL's text forms of arrays and composite values, taken apart.

``{1,NULL,"a,b"}`` and ``(1,,"a b")``: what the WAL carries and what an ``in`` filter brings.
Only the outer structure is read; what stands between the delimiters stays text.
Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO and
https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
"""

import re
from functools import lru_cache
from typing import Final

#: What the array and record input functions of PostgreSQL skip.
SPACES: Final = " \t\n\r\v\f"

#: A text, SQL NULL, or one more dimension.
ArrayItem = str | list["ArrayItem"] | None

#: One dimension without quotes, escapes and blanks: most arrays, read by one split.
_PLAIN_ONLY: Final = re.compile(rf'\{{[^"\\{{}}{SPACES}]*\}}')
_BOUNDS: Final = re.compile(r"(?:\[-?\d+:-?\d+\])+=")
_FIELD: Final = re.compile(
    r'(?:"(?P<quoted>[^"\\]*(?:(?:\\.|"")[^"\\]*)*)"|(?P<plain>[^,()"\\]*))(?:,|(?P<last>\Z))',
    re.DOTALL,
)
_QUOTED_ESCAPE: Final = re.compile(r'\\(.)|""', re.DOTALL)


def parse_array(text: str, delimiter: str = ",") -> list[ArrayItem]:
    """Take an array literal apart.

    Args:
        text: For example ``{{1,2},{3,NULL}}``; bounds such as ``[0:1]=`` in front are skipped.
        delimiter: ``typdelim`` of the element type.

    Returns:
        Elements in order; a further dimension is a nested list. An unquoted ``NULL`` is None.

    Raises:
        ValueError: If the text is not an array literal, or its dimensions do not agree.
    """
    if _PLAIN_ONLY.fullmatch(text) and delimiter == ",":
        return _plain_items(text[1:-1])
    bounds = _BOUNDS.match(text)
    reader = _ArrayReader(text, bounds.end() if bounds else 0, delimiter)
    items = reader.read_whole()
    if not _is_rectangular(items):
        message = "sub-arrays must have the same dimensions"
        raise ValueError(message)
    return items


def flattened(items: list[ArrayItem]) -> list[str | None]:
    """Return the elements of all dimensions in storage order."""
    flat: list[str | None] = []
    for item in items:
        if isinstance(item, list):
            flat.extend(flattened(item))
        else:
            flat.append(item)
    return flat


def parse_composite(text: str) -> list[str | None]:
    """Take the text form of a composite value apart, as PostgreSQL prints it.

    Returns:
        One text per attribute that is not dropped, None for NULL. ``()`` is one NULL attribute;
        a type without attributes prints the same, so the caller looks at its own list first.

    Raises:
        ValueError: If the text is not a composite literal.
    """
    if not (text.startswith("(") and text.endswith(")")):
        message = "a composite literal stands in parentheses"
        raise ValueError(message)
    fields: list[str | None] = []
    at, end = 1, len(text) - 1
    is_last = False
    while not is_last:
        match = _FIELD.match(text, at, end)
        if match is None:
            message = f"malformed composite literal at character {at}"
            raise ValueError(message)
        quoted = match["quoted"]
        if quoted is None:
            fields.append(match["plain"] or None)
        else:
            fields.append(_QUOTED_ESCAPE.sub(_unescaped, quoted))
        is_last = match["last"] is not None
        at = match.end()
    return fields


def _unescaped(match: re.Match[str]) -> str:
    return match[1] or '"'


def _plain_items(text: str) -> list[ArrayItem]:
    if not text:
        return []
    items: list[ArrayItem] = [_plain_item(item) for item in text.split(",")]
    if "" in items:
        message = "an element of an array literal must not be empty"
        raise ValueError(message)
    return items


def _plain_item(text: str) -> str | None:
    return None if text.upper() == "NULL" else text


@lru_cache(maxsize=4)
def _item_pattern(delimiter: str) -> re.Pattern[str]:
    # One element and the blanks after it; the reader has skipped those before it.
    special = re.escape(delimiter) + r'{}"\\'
    return re.compile(
        rf'"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"[{SPACES}]*'
        rf"|(?P<plain>(?:[^{special}]+|\\.)+)",
        re.DOTALL,
    )


_PLAIN_PART: Final = re.compile(r"\\(.)|([^\\]+)", re.DOTALL)


class _ArrayReader:
    """Reads one literal from left to right."""

    __slots__ = ("_at", "_delimiter", "_pattern", "_text")

    def __init__(self, text: str, at: int, delimiter: str) -> None:
        self._text = text
        self._at = at
        self._delimiter = delimiter
        self._pattern = _item_pattern(delimiter)

    def read_whole(self) -> list[ArrayItem]:
        """Read the literal to its end.

        The brackets are kept on a stack of our own: a hostile text of thousands of braces must
        not reach the interpreter's recursion limit.
        """
        self._skip_spaces()
        self._expect("{")
        root: list[ArrayItem] = []
        levels = [root]
        self._open(levels)
        while levels:
            self._step(levels)
        self._skip_spaces()
        if self._at != len(self._text):
            raise self._malformed()
        return root

    def _open(self, levels: list[list[ArrayItem]]) -> None:
        # After an opening brace: an empty level ends at once, everything else starts an item.
        self._skip_spaces()
        if self._peek() == "}":
            self._close(levels)
        elif self._peek() != "{":
            levels[-1].append(self._read_item())

    def _step(self, levels: list[list[ArrayItem]]) -> None:
        self._skip_spaces()
        symbol = self._peek()
        if symbol == "}":
            self._close(levels)
        elif symbol == "{" and not levels[-1]:
            self._descend(levels)
        elif symbol == self._delimiter and levels[-1]:
            self._at += 1
            self._skip_spaces()
            if self._peek() == "{":
                self._descend(levels)
            else:
                levels[-1].append(self._read_item())
        else:
            raise self._malformed()

    def _descend(self, levels: list[list[ArrayItem]]) -> None:
        if len(levels) >= _DIMENSIONS_MAX:
            message = f"an array has at most {_DIMENSIONS_MAX} dimensions"
            raise ValueError(message)
        self._at += 1
        level: list[ArrayItem] = []
        levels[-1].append(level)
        levels.append(level)
        self._open(levels)

    def _close(self, levels: list[list[ArrayItem]]) -> None:
        self._at += 1
        levels.pop()

    def _read_item(self) -> str | None:
        match = self._pattern.match(self._text, self._at)
        if match is None:
            raise self._malformed()
        self._at = match.end()
        quoted = match["quoted"]
        if quoted is not None:
            return _QUOTED_ESCAPE.sub(_unescaped, quoted)
        plain = match["plain"]
        if "\\" in plain:
            return _unescaped_plain(plain)
        return _plain_item(plain.rstrip(SPACES))

    def _skip_spaces(self) -> None:
        text, at = self._text, self._at
        while at < len(text) and text[at] in SPACES:
            at += 1
        self._at = at

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _expect(self, symbol: str) -> None:
        if self._peek() != symbol:
            raise self._malformed()
        self._at += 1

    def _malformed(self) -> ValueError:
        message = f"malformed array literal at character {self._at}"
        return ValueError(message)


#: MAXDIM of PostgreSQL.
_DIMENSIONS_MAX: Final = 6


def _unescaped_plain(plain: str) -> str:
    # An escaped character is kept even when it is a blank; the blanks after it are not.
    parts = [(match[1], match[2]) for match in _PLAIN_PART.finditer(plain)]
    if parts[-1][1]:
        parts[-1] = (None, parts[-1][1].rstrip(SPACES))
    return "".join([escaped or kept for escaped, kept in parts])


def _is_rectangular(items: list[ArrayItem]) -> bool:
    shapes = {_shape(item) for item in items}
    return len(shapes) <= 1 and None not in shapes


def _shape(item: ArrayItem) -> tuple[int, ...] | None:
    if not isinstance(item, list):
        return ()
    inner = {_shape(member) for member in item}
    if len(inner) > 1:
        return None
    below = next(iter(inner), ())
    return None if below is None else (len(item), *below)
