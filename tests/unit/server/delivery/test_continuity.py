"""The epoch changes exactly when continuity can not be proven."""

from dataclasses import replace

import pytest

from heliograph.core.changelog.history import StreamStart
from heliograph.core.replication.lsn import Lsn
from heliograph.server.delivery.continuity import Continuity


class Store:
    """Keeps the record, as a file does."""

    def __init__(self):
        self.record = None

    def load(self):
        return self.record

    def save(self, record):
        self.record = record

    def note_received(self, received):
        history = replace(self.record.history, received=received)
        self.record = replace(self.record, history=history)

    def sync(self):
        pass


START = StreamStart("7", 1, "slot", False, Lsn(100), Lsn(1_000))


def test_a_restart_that_continues_keeps_epoch_and_key():
    store = Store()
    first = Continuity(store)
    assert first.start(START) is None
    first.note_received(Lsn(500))
    second = Continuity(store)
    assert second.start(replace(START, start_lsn=Lsn(400))) is None
    assert second.epoch == first.epoch
    assert store.record.history.received == 500


@pytest.mark.parametrize("is_same_process", [True, False])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start_lsn": Lsn(501)}, "slot_moved"),
        ({"wal_end": Lsn(499)}, "database_behind"),
        ({"slot_is_new": True}, "slot_recreated"),
        ({"timeline": 2}, "history_changed"),
    ],
)
def test_what_does_not_continue_begins_another_epoch(is_same_process, change, reason):
    store = Store()
    first = Continuity(store)
    first.start(START)
    epoch = first.epoch
    first.note_received(Lsn(500))
    second = first if is_same_process else Continuity(store)
    assert second.start(replace(START, **change)) == reason
    assert second.epoch != epoch
    # Once: the next start continues what this one began.
    after = second.epoch
    again = replace(START, timeline=change.get("timeline", 1), start_lsn=Lsn(100))
    assert Continuity(store).start(again) is None
    assert Continuity(store).epoch != after  # not started yet


def test_what_was_received_is_noted_once_and_never_lowered():
    store = Store()
    continuity = Continuity(store)
    continuity.start(START)
    continuity.note_received(Lsn(500))
    continuity.note_received(Lsn(300))
    assert store.record.history.received == 500
