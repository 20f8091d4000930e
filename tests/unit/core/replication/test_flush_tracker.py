"""The confirmed position: law 7, flush never passes a transaction that is not kept."""

from hypothesis import given, strategies as st

from heliograph.core.replication.flush_tracker import FlushTracker
from heliograph.core.replication.lsn import Lsn


def test_nothing_is_confirmed_before_anything_is_known():
    assert FlushTracker().keep(Lsn(0x999)) == 0


def test_a_transaction_is_confirmed_when_it_is_kept():
    tracker = FlushTracker()
    tracker.hand_on(Lsn(0x20))
    assert tracker.progress == 0x20
    assert tracker.keep(Lsn(0x10)) == 0x10
    assert tracker.keep(Lsn(0x20)) == 0x20


def test_a_receiver_can_not_keep_more_than_it_was_handed():
    tracker = FlushTracker()
    tracker.hand_on(Lsn(0x20))
    assert tracker.keep(Lsn(0x999)) == 0x20


def test_an_idle_stream_follows_the_server():
    tracker = FlushTracker()
    tracker.hand_on(Lsn(0x20))
    assert tracker.receive_wal_end(Lsn(0x80), is_in_flight=False)
    assert tracker.progress == 0x80
    assert tracker.keep(Lsn(0x1F)) == 0x1F
    assert tracker.keep(Lsn(0x20)) == 0x80


def test_a_keepalive_in_mid_transaction_says_nothing():
    tracker = FlushTracker()
    assert not tracker.receive_wal_end(Lsn(0x80), is_in_flight=True)
    assert tracker.keep(Lsn(0x80)) == 0


def test_an_old_keepalive_moves_nothing():
    tracker = FlushTracker()
    tracker.hand_on(Lsn(0x20))
    assert not tracker.receive_wal_end(Lsn(0x20), is_in_flight=False)


def test_the_confirmed_position_never_goes_back():
    tracker = FlushTracker()
    tracker.hand_on(Lsn(0x20))
    tracker.keep(Lsn(0x20))
    assert tracker.keep(Lsn(0x10)) == 0x20
    assert tracker.confirmed == 0x20


def test_another_history_begins_at_zero():
    tracker = FlushTracker()
    tracker.hand_on(Lsn(0x20))
    tracker.keep(Lsn(0x20))
    tracker.reset()
    assert (tracker.progress, tracker.confirmed) == (0, 0)


@given(st.data())
def test_law_7_flush_never_passes_a_transaction_that_is_not_kept(data):
    """The server's log, delivered in order with keepalives; the receiver keeps what it likes."""
    tracker = FlushTracker()
    wal = 0x100
    open_commit: int | None = None
    not_kept: list[tuple[int, int]] = []  # (commit, end) of what was handed on
    kept_to = 0
    last_confirmed = 0
    for _ in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["begin", "commit", "keepalive", "keep", "wal"]))
        if action == "begin" and open_commit is None:
            open_commit = wal
        elif action == "commit" and open_commit is not None:
            wal = open_commit + 8
            tracker.hand_on(Lsn(wal))
            not_kept.append((open_commit, wal))
            open_commit = None
        elif action == "wal" and open_commit is None:
            wal += data.draw(st.integers(1, 50))
        elif action == "keepalive":
            tracker.receive_wal_end(Lsn(wal), is_in_flight=open_commit is not None)
        elif action == "keep" and not_kept:
            count = data.draw(st.integers(1, len(not_kept)))
            kept_to = not_kept[count - 1][1]
            del not_kept[:count]
        # Who keeps everything may say so with a position beyond the end.
        beyond = 0 if not_kept else data.draw(st.sampled_from([0, 10_000]))
        confirmed = tracker.keep(Lsn(kept_to + beyond))
        # PostgreSQL does not send again what committed below the confirmed position.
        unsafe = [commit for commit, _ in not_kept] + ([] if open_commit is None else [open_commit])
        assert all(confirmed <= commit for commit in unsafe)
        assert confirmed >= last_confirmed
        last_confirmed = confirmed
    if not not_kept and open_commit is None:
        tracker.receive_wal_end(Lsn(wal), is_in_flight=False)
        assert tracker.keep(Lsn(max(kept_to, wal))) == wal
