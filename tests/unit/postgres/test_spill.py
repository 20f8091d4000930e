"""The temporary file of an oversize transaction: records come back whole, to several readers."""

import os

import pytest

from heliograph.errors import StorageError
from heliograph.postgres.spill import FileSpill, spills_in

RECORDS = [b"", b"a", b"b" * 300_000, b"c" * 255_000, *(bytes([n]) * n for n in range(256))]


@pytest.fixture
def spill(tmp_path):
    spill = spills_in(tmp_path)()
    for record in RECORDS:
        spill.append(record)
    yield spill
    spill.discard()
    spill.discard()


def test_records_come_back_in_order_and_again(spill):
    assert list(spill.records()) == RECORDS
    assert list(spill.records()) == RECORDS


def test_several_may_read_at_once(spill):
    both = list(zip(spill.records(), spill.records(), strict=True))
    assert both == list(zip(RECORDS, RECORDS, strict=True))


def test_nothing_is_left_in_the_folder(spill, tmp_path):
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_cut_off_is_an_error(spill):
    list(spill.records())
    os.truncate(spill._file.fileno(), 300_100)
    with pytest.raises(StorageError):
        list(spill.records())


def test_a_file_that_is_closed_under_its_reader_is_an_error(spill):
    records = spill.records()
    next(records)
    spill.discard()
    with pytest.raises(StorageError):
        list(records)


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(StorageError):
        FileSpill(tmp_path / "missing")
