"""Headers of the WebSocket frames that a server sends, sizes of payloads, reasons of a close.

A server's frames are not masked (RFC 6455 section 5.1), so a frame is its header followed by the
payload as it is; several frames may be joined and written at once.
"""

from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_LENGTH_16_MAX: Final = 0xFFFF
#: A control frame holds 125 bytes, two of them the code (RFC 6455 section 5.5).
_REASON_BYTES_MAX: Final = 123


def message_bytes(message: str | bytes) -> int:
    """Return the bytes of a message's payload; of a text, as UTF-8."""
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    # A server that hands on half a surrogate pair is not our concern here.
    return len(message.encode(errors="surrogatepass"))


def server_frame_header(opcode: int, size: int) -> bytes:
    """Return the header of one unfragmented, unmasked frame (RFC 6455 section 5.2).

    Args:
        opcode: One of this module's constants.
        size: Bytes of the payload.
    """
    if size < _LENGTH_16:
        return bytes((_FINAL | opcode, size))
    if size <= _LENGTH_16_MAX:
        return bytes((_FINAL | opcode, _LENGTH_16, size >> 8, size & 0xFF))
    return bytes((_FINAL | opcode, _LENGTH_64)) + size.to_bytes(8, "big")


def split_server_frames(frames: bytes) -> list[tuple[int, bytes]]:
    """Take apart frames with headers of `server_frame_header`; opcode and payload of each.

    Args:
        frames: Whole frames of ours, one behind the other.
    """
    found: list[tuple[int, bytes]] = []
    end = 0
    while end < len(frames):
        opcode = frames[end] ^ _FINAL
        size = frames[end + 1]
        start = end + 2
        if size == _LENGTH_16:
            start += 2
            size = frames[end + 2] << 8 | frames[end + 3]
        elif size == _LENGTH_64:
            start += 8
            size = int.from_bytes(frames[end + 2 : start], "big")
        end = start + size
        found.append((opcode, frames[start:end]))
    return found


def close_reason(reason: str) -> bytes:
    """Return the text of a close frame; one that is too long is cut at a character."""
    return reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore").encode()
