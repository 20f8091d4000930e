"""What outlives the server: written in place, believed only when it is whole."""

import pytest

from heliograph.core.changelog.history import KnownHistory
from heliograph.core.replication.lsn import Lsn
from heliograph.errors import StorageError
from heliograph.ports.continuity_store import ContinuityRecord
from heliograph.server.continuity_file import ContinuityFile, ContinuityInMemory

RECORD = ContinuityRecord(KnownHistory("7", 3, "slot", Lsn(0x1234)), b"12345678", b"k" * 32)


def noted(record, received):
    history = record.history
    moved = KnownHistory(history.system_identifier, history.timeline, history.slot_name, received)
    return ContinuityRecord(moved, record.nonce, record.key)


def test_what_is_saved_and_noted_is_there_after_a_restart(tmp_path):
    file = ContinuityFile(tmp_path / "state", "slot")
    assert file.load() is None
    file.note_received(Lsn(1))  # nothing to note it in yet
    file.save(RECORD)
    file.note_received(Lsn(0xABCDEF))
    file.sync()
    assert ContinuityFile(tmp_path / "state", "slot").load() == noted(RECORD, Lsn(0xABCDEF))
    assert ContinuityFile(tmp_path / "state", "other").load() is None
    file.close()


def test_what_is_noted_after_a_load_is_kept_too(tmp_path):
    ContinuityFile(tmp_path, "slot").save(RECORD)
    file = ContinuityFile(tmp_path, "slot")
    assert file.load() == RECORD
    file.note_received(Lsn(0x99999))
    assert ContinuityFile(tmp_path, "slot").load() == noted(RECORD, Lsn(0x99999))


def test_nobody_else_may_read_the_key(tmp_path):
    ContinuityFile(tmp_path, "slot").save(RECORD)
    assert (tmp_path / "slot.continuity").stat().st_mode & 0o077 == 0


HEAD = b"0000000000001234 heliograph-continuity-"
KEY = b"6b" * 32


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"0" * 16,
        b"\xff" * 100,
        HEAD + b"1 x 1 slot aa bb\n",
        HEAD + b"2 7 3 slot 3132333435363738 " + KEY,
        HEAD + b"1 7 3 slot 3132 " + KEY,
    ],
)
def test_what_is_not_whole_is_not_believed(tmp_path, content):
    (tmp_path / "slot.continuity").write_bytes(content)
    assert ContinuityFile(tmp_path, "slot").load() is None


def test_a_file_that_can_not_be_replaced_is_removed(tmp_path):
    file = ContinuityFile(tmp_path, "slot")
    file.save(RECORD)
    (tmp_path / "slot.new").mkdir()
    file.save(RECORD)
    assert not (tmp_path / "slot.continuity").exists()
    file.note_received(Lsn(5))
    assert file.load() is None


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/state"):
        ContinuityFile(tmp_path / "file" / "state", "slot")


def test_without_a_folder_nothing_is_kept():
    store = ContinuityInMemory()
    store.save(RECORD)
    store.note_received(Lsn(1))
    store.sync()
    assert store.load() is None
