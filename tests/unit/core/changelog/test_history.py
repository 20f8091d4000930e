"""Continuity is believed only where it can be proven."""

import pytest

from heliograph.core.changelog.history import KnownHistory, StreamStart, why_not_continued
from heliograph.core.replication.lsn import Lsn

KNOWN = KnownHistory("7", 1, "slot", Lsn(100))


def start(*, system="7", timeline=1, slot="slot", is_new=False, start_lsn=50, wal_end=100):
    return StreamStart(system, timeline, slot, is_new, Lsn(start_lsn), Lsn(wal_end))


@pytest.mark.parametrize("start_lsn", [1, 50, 99, 100])
def test_a_slot_within_what_was_received_continues(start_lsn):
    assert why_not_continued(KNOWN, start(start_lsn=start_lsn, wal_end=200)) is None
    assert why_not_continued(KNOWN, start(start_lsn=start_lsn)) is None


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (start(system="8"), "history_changed"),
        (start(timeline=2), "history_changed"),
        (start(slot="other"), "history_changed"),
        (start(is_new=True), "slot_recreated"),
        (start(start_lsn=101, wal_end=200), "slot_moved"),
        (start(wal_end=99), "database_behind"),
    ],
)
def test_everything_else_begins_anew(now, reason):
    assert why_not_continued(KNOWN, now) == reason
