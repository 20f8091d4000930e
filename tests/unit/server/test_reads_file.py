"""What judging was found to read, across restarts: believed only when it is whole."""

import pytest

from heliograph import limits
from heliograph.server.reads_file import ReadsFile, ReadsInMemory

READS = {16_500: {16_400, 16_401}, 16_501: set()}


def test_what_is_saved_is_there_after_a_restart(tmp_path):
    assert ReadsFile(tmp_path, "slot").load() == {}
    ReadsFile(tmp_path, "slot").save({1: {2}})
    ReadsFile(tmp_path, "slot").save(READS)
    assert ReadsFile(tmp_path, "slot").load() == READS
    assert ReadsFile(tmp_path, "other").load() == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"x": [1]}', b'{"1": ["x"]}'])
def test_what_is_no_mapping_of_oids_is_not_believed(tmp_path, content):
    (tmp_path / "slot.reads.json").write_bytes(content)
    assert ReadsFile(tmp_path, "slot").load() == {}


def test_a_file_that_is_too_long_is_not_believed(tmp_path, monkeypatch):
    ReadsFile(tmp_path, "slot").save(READS)
    monkeypatch.setattr(limits, "READS_FILE_BYTES_MAX", 5)
    assert ReadsFile(tmp_path, "slot").load() == {}


def test_what_can_not_be_written_leaves_what_was_there(tmp_path):
    file = ReadsFile(tmp_path, "slot")
    file.save(READS)
    (tmp_path / "slot.reads.new").mkdir()
    file.save({1: {2}})
    assert file.load() == READS


def test_without_a_folder_nothing_is_kept():
    store = ReadsInMemory()
    store.save(READS)
    assert store.load() == {}
