"""Snapshots tell which transactions they see, across the wrap of 32-bit ids."""

import pytest
from hypothesis import given, strategies as st

from heliograph.core.replication.snapshot import Snapshot, parse_snapshot, precedes, widen_xid
from heliograph.errors import RemoteProtocolError


def test_a_snapshot_is_read_from_its_text():
    assert parse_snapshot("10:20:") == Snapshot(10, 20, frozenset())
    assert parse_snapshot("10:20:11,14") == Snapshot(10, 20, frozenset({11, 14}))


@pytest.mark.parametrize("text", ["", "10", "10:20", "a:b:", "10:20:x"])
def test_other_texts_are_refused(text):
    with pytest.raises(RemoteProtocolError, match="expected a snapshot"):
        parse_snapshot(text)


@pytest.mark.parametrize(
    ("xid", "seen"), [(9, True), (10, False), (11, True), (19, True), (20, False), (21, False)]
)
def test_running_and_later_transactions_are_not_seen(xid, seen):
    assert Snapshot(10, 20, frozenset({10})).sees(xid) is seen


def test_an_emitted_transaction_at_xmax_is_not_seen():
    """Measured: decoded from the slot while a later snapshot was 725:725: without its row."""
    assert not parse_snapshot("725:725:").sees(725)


@given(near=st.integers(2**31, 2**63), distance=st.integers(-(2**31) + 1, 2**31 - 1))
def test_a_short_id_is_widened_to_the_nearest_one(near, distance):
    wide = near + distance
    assert widen_xid(wide % 2**32, near=near) == wide


def test_no_id_is_widened_below_zero():
    assert widen_xid(2**32 - 1, near=5) == 2**32 - 1
    assert Snapshot(3, 2**32 + 5, frozenset()).sees(2**32 - 1)


def test_an_id_just_below_the_turn_is_the_older_one():
    from heliograph.core.replication.snapshot import widen_xid

    near = 5 * 2**32 + 10
    assert widen_xid(2**32 - 5, near=near) == 5 * 2**32 - 5
    assert widen_xid(7, near=6 * 2**32 - 3) == 6 * 2**32 + 7
    assert widen_xid(9, near=near) == 5 * 2**32 + 9
    assert widen_xid(2**32 - 5, near=10) == 2**32 - 5


def test_ids_of_transactions_go_round():
    assert precedes(5, 6)
    assert not precedes(6, 6)
    assert not precedes(7, 6)
    assert precedes((1 << 32) - 2, 3)
    assert not precedes(3, (1 << 32) - 2)
