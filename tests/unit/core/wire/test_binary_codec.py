import pytest
from hypothesis import given, strategies as st

from heliograph.core.wire.binary_codec import decode_binary
from heliograph.core.wire.messages import UserBroadcastPush
from heliograph.errors import RemoteProtocolError

#: ``1``, ``2``, ``realtime:room``, ``shout``, no metadata, JSON.
PUSH = bytes([3, 1, 1, 13, 5, 0, 1]) + b"12realtime:roomshout" + b'{"a":1}'


def test_a_push_of_kind_3_is_read_field_by_field():
    assert decode_binary(PUSH) == UserBroadcastPush(
        join_ref="1",
        ref="2",
        topic="realtime:room",
        user_event="shout",
        metadata=b"",
        payload=b'{"a":1}',
        is_json=True,
    )


def test_absent_refs_have_length_0_and_any_encoding_but_0_is_json():
    push = decode_binary(bytes([3, 0, 0, 1, 1, 2, 9]) + b"te{}\x00\xff")
    assert (push.join_ref, push.ref, push.metadata, push.is_json) == (None, None, b"{}", True)
    assert push.payload == b"\x00\xff"
    assert not decode_binary(bytes([3, 0, 0, 0, 0, 0, 0])).is_json


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x03",
        b"\x00" + PUSH[1:],
        b"\x04" + PUSH[1:],
        PUSH[:6],
        PUSH[:20],
        bytes([3, 0, 0, 1, 0, 0, 0]) + b"\xff",
        bytes([3, 65, 0, 0, 0, 0, 0]) + b"r" * 65,
        bytes([3, 0, 65, 0, 0, 0, 0]) + b"r" * 65,
    ],
)
def test_what_is_no_push_is_the_protocol_error(frame):
    with pytest.raises(RemoteProtocolError):
        decode_binary(frame)


@given(st.binary() | st.binary(min_size=7).map(lambda rest: b"\x03" + rest))
def test_any_bytes_give_a_push_or_the_protocol_error(frame):
    try:
        push = decode_binary(frame)
    except RemoteProtocolError:
        return
    assert frame.endswith(push.payload)
