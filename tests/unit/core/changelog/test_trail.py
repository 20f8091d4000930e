"""What the slot may confirm: behind it lies what fills the ring again after a restart."""

from hypothesis import given, strategies as st

from fixtures.transactions import empty_transaction
from heliograph.core.changelog.trail import SlotTrail, TrailBounds
from heliograph.core.replication.lsn import Lsn
from heliograph.limits import RING_TRANSACTION_OVERHEAD_BYTES


def fill(trail, *commit_lsns, now_s=0.0):
    for commit_lsn in commit_lsns:
        trail.add(empty_transaction(commit_lsn), now_s)


def test_without_transactions_everything_is_confirmed():
    assert SlotTrail().confirmed(Lsn(50), 0.0) == 50


def test_the_slot_stays_before_the_last_transactions():
    trail = SlotTrail(TrailBounds(transactions_max=2))
    fill(trail, 10)
    assert trail.confirmed(Lsn(19), 0.0) == 10
    fill(trail, 20, 30)
    assert trail.confirmed(Lsn(39), 0.0) == 20


def test_bytes_bound_it():
    trail = SlotTrail(TrailBounds(bytes_max=(RING_TRANSACTION_OVERHEAD_BYTES + 10) * 2))
    fill(trail, 10, 20, 30)
    assert trail.confirmed(Lsn(39), 0.0) == 20


def test_age_bounds_it():
    trail = SlotTrail(TrailBounds(age_s_max=5.0))
    fill(trail, 10, now_s=0.0)
    fill(trail, 20, now_s=3.0)
    assert trail.confirmed(Lsn(29), 5.0) == 10
    assert trail.confirmed(Lsn(29), 5.1) == 20
    assert trail.confirmed(Lsn(29), 9.0) == 29


def test_the_wal_that_is_held_back_bounds_it_and_the_servers_own_limit_does():
    trail = SlotTrail(TrailBounds(wal_bytes_max=100))
    fill(trail, 10)
    assert trail.confirmed(Lsn(500), 0.0) == 400
    trail.restart(is_kept=True, slot_wal_bytes=80)
    fill(trail, 10)
    assert trail.confirmed(Lsn(500), 0.0) == 480


def test_what_nobody_can_see_yet_is_sent_again():
    trail = SlotTrail(TrailBounds(transactions_max=2))
    fill(trail, 10, 20, 30, 40)
    assert trail.confirmed(Lsn(49), 0.0, unseen_from=Lsn(20)) == 20
    assert trail.confirmed(Lsn(49), 0.0, unseen_from=Lsn(40)) == 30
    assert trail.confirmed(Lsn(49), 0.0) == 30
    trail.restart(is_kept=False, slot_wal_bytes=None)
    assert trail.confirmed(Lsn(49), 0.0, unseen_from=Lsn(20)) == 49


def test_a_polled_slot_does_not_trail():
    trail = SlotTrail()
    trail.restart(is_kept=False, slot_wal_bytes=None)
    fill(trail, 10)
    assert trail.confirmed(Lsn(19), 0.0) == 19


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 5), st.integers(1, 200))
def test_it_never_goes_back_nor_beyond_what_was_received(steps, most, wal_bytes):
    trail = SlotTrail(TrailBounds(transactions_max=most, wal_bytes_max=wal_bytes))
    commit_lsn, before = 0, 0
    for step in steps:
        commit_lsn += step
        fill(trail, commit_lsn)
        confirmed = trail.confirmed(Lsn(commit_lsn + 1), 0.0)
        assert before <= confirmed <= commit_lsn + 1
        assert commit_lsn + 1 - confirmed <= wal_bytes
        before = confirmed
