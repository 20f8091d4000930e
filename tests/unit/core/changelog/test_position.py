"""Positions: what is written is read, and nothing else is."""

import pytest
from hypothesis import given, strategies as st

from heliograph.core.changelog.position import (
    SEQUENCE_END,
    Epoch,
    Fingerprint,
    Position,
    PositionCodec,
    make_fingerprint,
)
from heliograph.core.replication.lsn import Lsn
from heliograph.errors import RemoteProtocolError

CODEC = PositionCodec(b"a key of sixteen")
U64 = st.integers(0, 2**64 - 1)
POSITIONS = st.builds(
    Position,
    epoch=U64.map(Epoch),
    lsn=U64.map(Lsn),
    sequence=st.integers(0, SEQUENCE_END),
    subscription=U64.map(Fingerprint),
    rights=U64.map(Fingerprint),
)


@given(POSITIONS)
def test_what_is_written_is_read(position):
    text = CODEC.encode(position)
    assert len(text) == 64
    assert CODEC.decode(text) == position


@given(POSITIONS, st.integers(0, 63), st.sampled_from("Aa0-_"))
def test_no_changed_position_is_read(position, place, letter):
    text = CODEC.encode(position)
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(RemoteProtocolError):
            CODEC.decode(changed)


@given(st.text() | st.text("Aa0-_", min_size=64, max_size=64))
def test_no_other_text_is_read(text):
    with pytest.raises(RemoteProtocolError):
        CODEC.decode(text)


def test_another_servers_position_is_not_read():
    position = Position(Epoch(1), Lsn(2), 3, Fingerprint(4), Fingerprint(5))
    with pytest.raises(RemoteProtocolError):
        CODEC.decode(PositionCodec(b"another key of 16").encode(position))


def test_a_fingerprint_stands_for_its_text_whatever_that_holds():
    assert make_fingerprint("a") == make_fingerprint("a") != make_fingerprint("b")
    assert 0 <= make_fingerprint("\ud800") < 2**64


def test_a_text_that_is_no_base64_is_not_read():
    with pytest.raises(RemoteProtocolError):
        CODEC.decode("!" * 64)
