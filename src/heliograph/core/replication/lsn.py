"""LSN: a byte position in PostgreSQL's write-ahead log.

Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
"""

import re
from typing import Final, NewType

from heliograph.errors import RemoteProtocolError

#: Bytes since the start of the log, 0 to 2^64 - 1.
Lsn = NewType("Lsn", int)

ZERO_LSN: Final = Lsn(0)

#: Behind every position.
MAX_LSN: Final = Lsn((1 << 64) - 1)

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> Lsn:
    """Read PostgreSQL's text form, two hexadecimal halves: ``16/B374D848``.

    Raises:
        RemoteProtocolError: If the text has another form.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        message = f"expected an LSN such as 16/B374D848, got {text[:40]!r}"
        raise RemoteProtocolError(message)
    return Lsn(int(match[1], 16) << 32 | int(match[2], 16))


def format_lsn(lsn: Lsn) -> str:
    """Write the text form that PostgreSQL reads and prints."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
