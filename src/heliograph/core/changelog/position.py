"""Positions of subscribers in the change stream, as clients keep them and bring them back.

A position names the epoch, a place in the stream, who subscribed to what, and the rights under
which everything up to the place was judged. Clients see an opaque text. It is authenticated: replay
judges everything again, but an old fingerprint of rights at another place would let its owner
choose the moment at which his rights are believed to have been the same (S39). Form: base64url of
version (1 byte), epoch (8), LSN (8), sequence (4), subscription (8), rights (8) and authentication
(11).
"""

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NewType

from heliograph.core.replication.lsn import Lsn
from heliograph.errors import RemoteProtocolError

#: 64 bits that name one provably continuous history.
Epoch = NewType("Epoch", int)

#: 64 bits that stand for a subscription or for rights.
Fingerprint = NewType("Fingerprint", int)

#: The ``sequence`` of a position behind every change that commits at or before its LSN.
SEQUENCE_END: Final = 0xFFFFFFFF

_VERSION: Final = 1
_FIELDS: Final = struct.Struct(">BQQIQQ")
_TAG_BYTES: Final = 11
_TEXT_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscriber is; everything up to here was delivered to it.

    Attributes:
        epoch: The history that the place belongs to.
        lsn: Commit position. With `SEQUENCE_END` everything that commits at or before it was
            delivered; otherwise it names the transaction that the place is in.
        sequence: Index of the last change delivered of that transaction, all tables counted.
        subscription: Who subscribed to what.
        rights: What decided at that moment what the subscriber may see.
    """

    epoch: Epoch
    lsn: Lsn
    sequence: int
    subscription: Fingerprint
    rights: Fingerprint


def make_fingerprint(text: str) -> Fingerprint:
    """Return 64 bits that stand for a text."""
    return Fingerprint(
        int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest())
    )


class PositionCodec:
    """Writes positions, and reads those that a holder of the same key has written."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take the key.

        Args:
            key: 16 to 64 secret bytes.
        """
        self._key = key

    def encode(self, position: Position) -> str:
        """Write the text form, 64 characters of base64url."""
        content = _FIELDS.pack(
            _VERSION,
            position.epoch,
            position.lsn,
            position.sequence,
            position.subscription,
            position.rights,
        )
        return base64.urlsafe_b64encode(content + self._tag(content)).decode()

    def decode(self, text: str) -> Position:
        """Read the text form.

        Raises:
            RemoteProtocolError: If it was not written with our key: forged, damaged, another
                server's, or another version's.
        """
        if len(text) == _TEXT_CHARACTERS and text.isascii():
            try:
                data = base64.b64decode(text, altchars=b"-_", validate=True)
            except binascii.Error:
                data = b""
            content, tag = data[: _FIELDS.size], data[_FIELDS.size :]
            if len(data) == _FIELDS.size + _TAG_BYTES and hmac.compare_digest(
                tag, self._tag(content)
            ):
                _, epoch, lsn, sequence, subscription, rights = _FIELDS.unpack(content)
                return Position(
                    Epoch(epoch),
                    Lsn(lsn),
                    sequence,
                    Fingerprint(subscription),
                    Fingerprint(rights),
                )
        message = "the position was not written by this server"
        raise RemoteProtocolError(message)

    def _tag(self, content: bytes) -> bytes:
        return blake2b(content, key=self._key, digest_size=_TAG_BYTES).digest()
