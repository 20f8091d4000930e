r"""How one change looks on one line of a terminal.

::

    14:03:22.123 UPDATE id=4000…-000012 status: pending → processing, updated_at: … → …

Whatever comes from the database is shown with its control characters, its direction marks and
everything else that does not print written as ``\uXXXX``: a value can not move the cursor, clear
the screen or pretend to be another line.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Final

import msgspec

from heliograph import limits
from heliograph.errors import RemoteProtocolError

#: A string that is shown without quotes: nothing in it could be taken for our own punctuation.
_PLAIN: Final = re.compile(r"[\w@+/-][\w.:@+/-]*")
_LOOKS_LIKE_OTHERS: Final = re.compile(r"null|true|false|[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")

_STYLES: Final[Mapping[str, str]] = {"INSERT": "green", "UPDATE": "yellow", "DELETE": "red"}
_FAINT: Final = "dim"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a line.

    Attributes:
        text: Safe to print.
        style: For `rich`; empty for none.
    """

    text: str
    style: str = ""


class _Change(msgspec.Struct):
    """The ``data`` object (protocol section 10.1)."""

    type: str
    schema: str
    table: str
    commit_timestamp: str | None = None
    record: dict[str, object] = msgspec.field(default_factory=dict[str, object])
    old_record: dict[str, object] = msgspec.field(default_factory=dict[str, object])
    errors: list[str] | None = None


# Decimal keeps every digit of a numeric; a float would not.
_decode_change: Final = msgspec.json.Decoder(_Change, float_hook=Decimal).decode
_encode_value: Final = msgspec.json.Encoder(decimal_format="number").encode


def escape_unprintable(text: str) -> str:
    r"""Write every character that does not print as ``\uXXXX``, as JSON would.

    Line ends are among them. Characters beyond U+FFFF become a surrogate pair.
    """
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else _escaped(char) for char in text])


def escape_json(content: bytes) -> str:
    """Return JSON text as one line that is safe on a terminal and still the same JSON.

    Outside of strings JSON has no unprintable characters but line ends and tabs; those become
    spaces.
    """
    text = content.decode("utf-8", errors="replace")
    return escape_unprintable(text.translate({0x09: " ", 0x0A: " ", 0x0D: " "}))


def render_change(content: bytes, *, zone: tzinfo | None, is_many_tables: bool) -> list[Segment]:
    """Lay one change out as the segments of one line.

    Args:
        content: The ``data`` object as JSON text.
        zone: The time zone for the commit time; None for the machine's.
        is_many_tables: Whether the line must say which table it is about.

    Raises:
        RemoteProtocolError: If the content is not what the protocol says.
    """
    try:
        change = _decode_change(content)
    except msgspec.MsgspecError as error:
        message = "the server sent a change that is none of the protocol's"
        raise RemoteProtocolError(message) from error
    segments = [
        Segment(_time_text(change.commit_timestamp, zone), _FAINT),
        Segment(" "),
        Segment(escape_unprintable(change.type), _STYLES.get(change.type, "")),
    ]
    if is_many_tables:
        table = f" {_name_text(change.schema)}.{_name_text(change.table)}"
        segments.append(Segment(table))
    known = change.record or change.old_record
    key = _key_columns(change)
    segments += [
        Segment(f" {_name_text(name)}={_value_text(known[name])}", "bold")
        for name in known
        if name in key
    ]
    segments += _joined(_column_segments(change, key))
    segments += [Segment(f" ({escape_unprintable(text)})", "red") for text in change.errors or ()]
    return segments


def _column_segments(change: _Change, key: frozenset[str]) -> Iterable[list[Segment]]:
    """Yield what is to be said of each column that is not of the key.

    An UPDATE of a table with full replica identity says what changed. Where the old row is not
    known (its key is all there is) every column's new value is shown.
    """
    record, old_record = change.record, change.old_record
    if record and old_record and not old_record.keys() <= key:
        for name in record:
            old, new = old_record.get(name, _UNKNOWN), record[name]
            if old != new or type(old) is not type(new):
                yield [
                    Segment(f"{_name_text(name)}: "),
                    Segment(_value_text(old), _FAINT),
                    Segment(" → "),
                    Segment(_value_text(new), "bold"),
                ]
        return
    for name, value in (record or old_record).items():
        if name not in key:
            yield [Segment(f"{_name_text(name)}=", _FAINT), Segment(_value_text(value))]


class _Unknown:
    """Stands for a value that the server did not send."""


_UNKNOWN: Final = _Unknown()


def _joined(columns: Iterable[list[Segment]]) -> list[Segment]:
    segments: list[Segment] = []
    for column in columns:
        segments.append(Segment(", " if segments else "  "))
        segments += column
    return segments


def _key_columns(change: _Change) -> frozenset[str]:
    """Find out the key; the protocol does not name it.

    An old row of fewer columns than the new one is the key. Otherwise guess: a column ``id``, else
    every column whose name ends in ``_id``, else the first column.
    """
    record, old_record = change.record, change.old_record
    if 0 < len(old_record) < len(record):
        return frozenset(old_record)
    row = record or old_record
    if "id" in row:
        return frozenset({"id"})
    named = frozenset(name for name in row if name.endswith("_id"))
    return named or frozenset(list(row)[:1])


def _time_text(timestamp: str | None, zone: tzinfo | None) -> str:
    if timestamp is None:
        return "--:--:--.---"
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return escape_unprintable(timestamp)
    return moment.astimezone(zone).strftime("%H:%M:%S.%f")[:-3]


def _name_text(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else _quoted(name)


def _value_text(value: object) -> str:
    if isinstance(value, _Unknown):
        return "?"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and not _LOOKS_LIKE_OTHERS.fullmatch(value)
        return _shortened(value, str) if is_plain else _shortened(value, _quoted)
    return _shortened(_encode_value(value).decode(), escape_unprintable)


def _shortened(text: str, shape: Callable[[str], str]) -> str:
    most = limits.TAIL_VALUE_CHARACTERS_MAX
    return shape(text) if len(text) <= most else f"{shape(text[:most])}…"


def _quoted(text: str) -> str:
    return escape_unprintable(msgspec.json.encode(text).decode())


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", errors="surrogatepass")
    return "".join([f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)])
