"""Puts fragmented WebSocket messages together, within bounds (RFC 6455 section 5.4).

The parser below us has checked single frames: mask, opcode, size, control frames. What is left is
the order of fragments, their number and their sum, and that nobody compresses: we never agree to
an extension, so a reserved bit is an error (S31).
"""

from heliograph.core.wire import close_codes
from heliograph.core.wire.websocket_frame import CONTINUATION, TEXT
from heliograph.errors import FrameError
from heliograph.limits import MESSAGE_FRAGMENTS_MAX


class MessageAssembler:
    """One connection's inbound data frames, in order."""

    __slots__ = ("_bytes", "_fragments", "_message_bytes_max", "_opcode")

    def __init__(self, message_bytes_max: int) -> None:
        """Start between messages.

        Args:
            message_bytes_max: Bytes of one whole message; a longer one ends the connection.
        """
        self._message_bytes_max = message_bytes_max
        self._fragments: list[bytes] = []
        self._bytes = 0
        self._opcode: int | None = None

    def receive_frame(
        self, opcode: int, payload: bytes, *, is_final: bool, has_reserved_bits: bool
    ) -> str | bytes | None:
        """Take one data frame.

        Returns:
            The message (str for text, bytes for binary) when this frame completes one, else None.

        Raises:
            FrameError: If the frame is out of order, compressed, or the message is too large or in
                too many pieces or not UTF-8; close the connection with its code.
        """
        if has_reserved_bits:
            message = "a reserved bit is set, no extension was agreed"
            raise FrameError(message, close_code=close_codes.PROTOCOL_ERROR.number)
        if (opcode == CONTINUATION) == (self._opcode is None):
            message = "a fragment is out of order"
            raise FrameError(message, close_code=close_codes.PROTOCOL_ERROR.number)
        if self._opcode is None:
            self._opcode = opcode
        self._fragments.append(payload)
        self._bytes += len(payload)
        if self._bytes > self._message_bytes_max:
            message = f"a message may have at most {self._message_bytes_max} bytes"
            raise FrameError(message, close_code=close_codes.MESSAGE_TOO_BIG.number)
        if len(self._fragments) > MESSAGE_FRAGMENTS_MAX:
            message = f"a message may come in at most {MESSAGE_FRAGMENTS_MAX} fragments"
            raise FrameError(message, close_code=close_codes.MESSAGE_TOO_BIG.number)
        return self._complete(self._opcode) if is_final else None

    def _complete(self, opcode: int) -> str | bytes:
        """Join the fragments and be between messages again."""
        whole = b"".join(self._fragments)
        self._fragments = []
        self._bytes = 0
        self._opcode = None
        if opcode != TEXT:
            return whole
        try:
            return whole.decode()
        except UnicodeDecodeError as error:
            message = "a text message is not UTF-8"
            raise FrameError(message, close_code=close_codes.INVALID_TEXT.number) from error
