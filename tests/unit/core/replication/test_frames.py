"""Frames inside CopyData: what the server sends and what we answer."""

import pytest
from hypothesis import given, strategies as st

from fixtures.pgoutput import TIME_US, encode_keepalive, encode_xlog_data
from heliograph.core.replication.frames import (
    Keepalive,
    StandbyStatus,
    XLogData,
    decode_frame,
    decode_standby_status,
    encode_standby_status,
)
from heliograph.core.replication.lsn import Lsn
from heliograph.errors import RemoteProtocolError

lsns = st.integers(0, 2**64 - 1).map(Lsn)


def test_xlog_data_carries_its_payload():
    assert decode_frame(encode_xlog_data(b"payload", lsn=7)) == XLogData(7, 7, TIME_US, b"payload")
    assert decode_frame(encode_xlog_data(b"", lsn=7)) == XLogData(7, 7, TIME_US, b"")


@pytest.mark.parametrize("reply", [True, False])
def test_a_keepalive_says_how_far_the_server_is(reply):
    frame = encode_keepalive(2**64 - 1, reply=reply)
    assert decode_frame(frame) == Keepalive(2**64 - 1, TIME_US, reply)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"x",
        encode_xlog_data(b"")[:-1],
        encode_keepalive(1)[:-1],
        encode_keepalive(1) + b"\0",
    ],
)
def test_other_frames_are_refused(frame):
    with pytest.raises(RemoteProtocolError, match="expected XLogData or a keepalive"):
        decode_frame(frame)


@given(
    st.builds(
        StandbyStatus,
        lsns,
        lsns,
        lsns,
        st.integers(0, 2**62),
        st.booleans(),
    )
)
def test_a_status_survives_the_wire(status):
    assert decode_standby_status(encode_standby_status(status)) == status


def test_a_status_has_the_layout_of_the_protocol():
    frame = encode_standby_status(
        StandbyStatus(Lsn(3), Lsn(2), Lsn(1), 946_684_800_000_005, is_reply_requested=True)
    )
    assert frame == b"r" + bytes([*[0] * 7, 3, *[0] * 7, 2, *[0] * 7, 1, *[0] * 7, 5, 1])


@pytest.mark.parametrize("frame", [b"", b"r", b"k" + bytes(33)])
def test_other_statuses_are_refused(frame):
    with pytest.raises(RemoteProtocolError, match="expected a standby status"):
        decode_standby_status(frame)
