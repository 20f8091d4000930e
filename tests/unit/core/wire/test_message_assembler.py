import itertools

import pytest
from hypothesis import given, strategies as st

from heliograph.core.wire.message_assembler import MessageAssembler
from heliograph.core.wire.websocket_frame import BINARY, CONTINUATION, TEXT
from heliograph.errors import FrameError
from heliograph.limits import MESSAGE_FRAGMENTS_MAX


def receive(assembler, opcode, payload, final=True, reserved=False):
    return assembler.receive_frame(opcode, payload, is_final=final, has_reserved_bits=reserved)


@given(st.text(), st.lists(st.integers(0, 40), max_size=5))
def test_any_cutting_of_a_text_gives_the_same_text(text, cuts):
    whole = text.encode()
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    assembler = MessageAssembler(10_000)
    message = None
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        assert message is None
        opcode = CONTINUATION if number else TEXT
        message = receive(assembler, opcode, whole[start:end], final=number == len(edges) - 2)
    assert message == text


def test_a_binary_message_stays_bytes_and_the_next_one_is_fresh():
    assembler = MessageAssembler(10)
    assert receive(assembler, BINARY, b"\xff" * 10) == b"\xff" * 10
    assert receive(assembler, TEXT, b"0123456789") == "0123456789"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(CONTINUATION, b"", True, False)], 1002),
        ([(TEXT, b"a", False, False), (TEXT, b"b", True, False)], 1002),
        ([(TEXT, b"a", True, True)], 1002),
        ([(TEXT, b"\xff", True, False)], 1007),
        ([(TEXT, b"0123456789", False, False), (CONTINUATION, b"0", True, False)], 1009),
    ],
)
def test_a_message_that_can_not_be_is_the_frame_error_with_its_code(frames, code):
    assembler = MessageAssembler(10)
    *before, last = frames
    for opcode, payload, final, reserved in before:
        assert receive(assembler, opcode, payload, final, reserved) is None
    with pytest.raises(FrameError) as caught:
        receive(assembler, last[0], last[1], last[2], last[3])
    assert caught.value.close_code == code


@pytest.mark.security
def test_too_many_fragments_end_the_connection_even_if_they_are_empty():
    assembler = MessageAssembler(10)
    receive(assembler, TEXT, b"", final=False)
    for _ in range(MESSAGE_FRAGMENTS_MAX - 1):
        receive(assembler, CONTINUATION, b"", final=False)
    with pytest.raises(FrameError) as caught:
        receive(assembler, CONTINUATION, b"", final=False)
    assert caught.value.close_code == 1009
