import pytest
from hypothesis import given, strategies as st

from heliograph.core.changelog.position import (
    SEQUENCE_END,
    Epoch,
    Position,
    format_position,
    make_epoch,
    parse_position,
)
from heliograph.core.replication.lsn import Lsn
from heliograph.errors import RemoteProtocolError

positions = st.builds(
    Position,
    st.integers(0, 2**64 - 1).map(Epoch),
    st.integers(0, 2**64 - 1).map(Lsn),
    st.integers(0, SEQUENCE_END),
)


@given(positions)
def test_a_position_reads_back_as_it_was_written(position):
    assert parse_position(format_position(position)) == position


@given(positions, positions)
def test_texts_sort_like_positions(one, other):
    assert (format_position(one) < format_position(other)) == (one < other)


@given(st.text(max_size=60))
def test_any_other_text_is_a_protocol_error(text):
    try:
        parsed = parse_position(text)
    except RemoteProtocolError:
        return
    assert format_position(parsed) == text


@pytest.mark.parametrize("text", ["", "0", "0" * 42, "G" * 16 + "." + "0" * 16 + "." + "0" * 8])
def test_malformed_positions_are_refused(text):
    with pytest.raises(RemoteProtocolError):
        parse_position(text)


def test_the_epoch_depends_on_system_timeline_and_nonce():
    parts = {"system_identifier": "1", "timeline": 1, "nonce": "a"}
    known = make_epoch(**parts)
    assert known == make_epoch(**parts)
    for change in ({"system_identifier": "2"}, {"timeline": 2}, {"nonce": "b"}):
        assert make_epoch(**{**parts, **change}) != known
