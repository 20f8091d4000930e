"""Positions in the change stream, opaque to clients: ``epoch.commit_lsn.seq``.

Each part is hexadecimal of fixed width, so that texts of one epoch sort like positions. A position
of another epoch says nothing: the epoch changes exactly when continuity can not be proven. A
position needs no signature: all that is replayed from it is judged again.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NewType

from heliograph.core.replication.lsn import Lsn
from heliograph.errors import RemoteProtocolError

#: 64 bits that name one provably continuous history.
Epoch = NewType("Epoch", int)

#: The ``sequence`` of a position after all changes of its transaction.
SEQUENCE_END: Final = 0xFFFFFFFF

_TEXT: Final = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{16})\.([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the stream; only positions of one epoch can be compared.

    Attributes:
        epoch: The history it belongs to.
        commit_lsn: Commit position of the transaction.
        sequence: Index of the last change of that transaction that was passed, all tables
            counted; `SEQUENCE_END` if the whole transaction was.
    """

    epoch: Epoch
    commit_lsn: Lsn
    sequence: int = SEQUENCE_END


def make_epoch(*, system_identifier: str, timeline: int, nonce: str) -> Epoch:
    """Derive the epoch of a history.

    Args:
        system_identifier: From IDENTIFY_SYSTEM.
        timeline: From IDENTIFY_SYSTEM; a promoted standby begins a new one.
        nonce: Drawn anew whenever continuity ends for another reason (new slot, lost ring).
    """
    text = f"{system_identifier}\0{timeline}\0{nonce}".encode()
    return Epoch(int.from_bytes(blake2b(text, digest_size=8).digest()))


def format_position(position: Position) -> str:
    """Write the text form, 42 characters."""
    return f"{position.epoch:016x}.{position.commit_lsn:016x}.{position.sequence:08x}"


def parse_position(text: str) -> Position:
    """Read the text form.

    Raises:
        RemoteProtocolError: If the text has any other form, upper case included.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        message = f"expected a position epoch.commit_lsn.seq in hexadecimal, got {text[:60]!r}"
        raise RemoteProtocolError(message)
    epoch, commit_lsn, sequence = (int(part, 16) for part in match.groups())
    return Position(Epoch(epoch), Lsn(commit_lsn), sequence)
