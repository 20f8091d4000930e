import pytest
from websockets.frames import Frame
from websockets.streams import StreamReader

from heliograph.core.wire import websocket_frame
from heliograph.core.wire.websocket_frame import (
    close_reason,
    message_bytes,
    server_frame_header,
    split_server_frames,
)


def parse(stream: bytes) -> Frame:
    """Read one frame with an independent implementation of RFC 6455."""
    reader = StreamReader()
    reader.feed_data(stream)
    reader.feed_eof()
    parser = Frame.parse(reader.read_exact, mask=False)
    try:
        next(parser)
    except StopIteration as done:
        return done.value
    raise AssertionError("incomplete frame")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("opcode", [websocket_frame.TEXT, websocket_frame.BINARY])
def test_the_header_is_read_by_another_implementation(opcode, size):
    frame = parse(server_frame_header(opcode, size) + b"x" * size)
    assert (frame.opcode, len(frame.data), frame.fin) == (opcode, size, True)


@pytest.mark.parametrize("message", ["", "abc", "é", "𝄞x", b"\xff\xff"])
def test_the_size_of_a_message_is_that_on_the_wire(message):
    encoded = message if isinstance(message, bytes) else message.encode()
    assert message_bytes(message) == len(encoded)


def test_half_a_surrogate_pair_has_a_size():
    assert message_bytes("\ud800") == 3


def test_frames_of_every_size_are_taken_apart_again():
    sizes = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 0, 200_000]
    opcodes = [websocket_frame.TEXT, websocket_frame.BINARY, websocket_frame.PONG]
    frames = [(opcodes[number % 3], bytes([number]) * size) for number, size in enumerate(sizes)]
    wire = b"".join(
        server_frame_header(opcode, len(payload)) + payload for opcode, payload in frames
    )
    assert split_server_frames(wire) == frames
    assert split_server_frames(b"") == []


@pytest.mark.parametrize(
    ("reason", "sent"), [("é" * 100, "é" * 61), ("x" * 124, "x" * 123), ("bye", "bye"), ("", "")]
)
def test_a_close_reason_fits_a_control_frame_and_ends_with_a_whole_character(reason, sent):
    assert close_reason(reason) == sent.encode()
