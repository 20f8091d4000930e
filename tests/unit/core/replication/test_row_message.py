"""Row messages with their relation: keys, unknown values, damage."""

import pytest

from fixtures.pgoutput import encode_delete, encode_insert, encode_update, make_relation
from heliograph.core.replication import row_message
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, Unknown
from heliograph.core.replication.row_message import (
    RowReader,
    RowVersions,
    fill_unchanged,
    make_readers,
    reshape,
)
from heliograph.errors import RemoteProtocolError

U = Unknown.UNCHANGED_TOAST
N = Unknown.NOT_SENT

FULL = make_relation(columns=("id", "body", "big"))
DEFAULT = make_relation(columns=("id", "body", "big"), identity=ReplicaIdentity.DEFAULT)


def read(relation, payload, positions=(0,)):
    return RowReader(relation, positions).read(payload, 0, len(payload))


def test_an_insert_has_only_a_new_row():
    row = read(FULL, encode_insert(1, ["1", "a", None]))
    assert row == RowVersions(ChangeKind.INSERT, None, False, ("1", "a", None), False)


def test_an_update_without_old_tuple_knows_the_key_only():
    row = read(DEFAULT, encode_update(1, ["1", "a", U]))
    assert row == RowVersions(ChangeKind.UPDATE, ("1", N, N), False, ("1", "a", U), True)


def test_columns_that_a_key_tuple_does_not_carry_are_unknown_not_null():
    row = read(DEFAULT, encode_update(1, ["2", "a", "b"], old=["1", None, None], kind=b"K"))
    assert row == RowVersions(ChangeKind.UPDATE, ("1", N, N), False, ("2", "a", "b"), False)
    row = read(DEFAULT, encode_delete(1, ["1", None, None], kind=b"K"))
    assert row == RowVersions(ChangeKind.DELETE, ("1", N, N), False, None, False)


def test_unchanged_toast_is_filled_from_the_full_old_row():
    row = read(FULL, encode_update(1, ["1", "a", U], old=["1", "b", "large"]))
    assert row.new == ("1", "a", "large")
    assert row.old == ("1", "b", "large")
    assert row.old_is_full
    assert not row.has_unchanged


def test_unchanged_toast_of_another_column_than_the_key_stays_unknown():
    row = read(DEFAULT, encode_update(1, [U, "a", U], old=["1", None, None], kind=b"K"))
    assert row.new == ("1", "a", U)
    assert row.has_unchanged


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"I\0\0",
        encode_insert(1, ["1", "a"]),  # too few columns
        encode_insert(1, ["1", "a", "b", "c"]),  # too many
        encode_insert(1, ["1", "a", b"\0"]),  # binary was not asked for
        encode_insert(1, ["1", "a", None])[:-1],
        encode_insert(1, ["1", "a", "bc"])[:-1],
        encode_insert(1, ["1", "a", None]) + b"n",
        encode_delete(1, ["1", "a", None], kind=b"X"),
        encode_delete(1, ["1", "a", None], kind=b"N"),
        b"I" + encode_delete(1, ["1", "a", None])[1:],
        encode_update(1, ["1", "a", "b"], old=["1", "a", "b"]).replace(b"N", b"O"),
        b"Q" + encode_insert(1, ["1", "a", None])[1:],
    ],
)
def test_a_damaged_row_is_refused(payload):
    with pytest.raises(RemoteProtocolError, match="row message"):
        read(FULL, payload)


def test_the_primary_key_is_the_key_with_full():
    reader = RowReader(FULL, (0,))
    assert reader.has_key
    assert reader.key_of(("1", "a", "b")) == "1"
    assert RowReader(FULL, (0, 2)).key_of(("1", "a", "b")) == ("1", "b")


def test_the_whole_row_is_the_key_with_full_and_no_primary_key():
    assert RowReader(FULL, None).key_of(("1", "a", None)) == ("1", "a", None)
    assert RowReader(FULL, ()).key_of(("1", "a", None)) == ("1", "a", None)


def test_positions_that_old_rows_do_not_carry_are_not_a_key():
    assert RowReader(DEFAULT, (1,)).key_of(("1", "a", "b")) == "1"
    assert RowReader(FULL, (7,)).key_of(("1", "a", "b")) == ("1", "a", "b")


def test_a_table_without_identity_has_no_key():
    reader = RowReader(make_relation(key=(), identity=ReplicaIdentity.NOTHING), None)
    assert not reader.has_key
    assert reader.key_of(("1", "a")) is None


def test_a_message_touches_the_keys_of_both_its_rows():
    reader = RowReader(FULL, (0,))
    keys = [
        reader.keys(read(FULL, payload))
        for payload in [
            encode_insert(1, ["1", "a", "b"]),
            encode_delete(1, ["2", "a", "b"]),
            encode_update(1, ["3", "a", "b"], old=["3", "x", "b"]),
            encode_update(1, ["5", "a", "b"], old=["4", "x", "b"]),
        ]
    ]
    assert keys == [("1",), ("2",), ("3",), ("4", "5")]
    assert reader.keys(RowVersions(ChangeKind.DELETE, None, False, None, False)) == ()


def test_only_unchanged_values_are_filled():
    assert fill_unchanged(("1", U, U, None), ("2", "a", N, "b")) == ("1", "a", U, None)


def test_a_row_is_carried_over_by_column_name_and_type():
    renamed = make_relation(columns=("big", "id", "text"))
    assert reshape(("1", "a", "b"), FULL, FULL) == (("1", "a", "b"), True)
    assert reshape(("1", "a", "b"), FULL, renamed) == (("b", "1", N), False)
    fewer = make_relation(columns=("id",))
    assert reshape(("1", "a", "b"), FULL, fewer) == (("1",), True)


def test_positions_speak_of_the_last_version_of_a_table():
    later = make_relation(columns=("body", "id", "extra"))
    readers = make_readers([FULL, later], {FULL.oid: (1,), 99: None})
    assert readers[id(FULL)].key_of(("1", "a", "b")) == "1"
    assert readers[id(later)].key_of(("a", "1", "c")) == "1"
    dropped = make_readers([FULL, later], {FULL.oid: (2,)})
    assert dropped[id(FULL)].key_of(("1", "a", "b")) == ("1", "a", "b")
    wrong = make_readers([FULL, later], {FULL.oid: (9,)})
    assert wrong[id(FULL)].key_of(("1", "a", "b")) == ("1", "a", "b")
    assert make_readers([FULL], {}) == {}
    assert make_readers([FULL], {FULL.oid: None})[id(FULL)].has_key


def test_a_reader_is_made_once_for_a_version_and_forgotten_among_too_many(monkeypatch):
    monkeypatch.setattr(row_message, "_READERS", {})
    monkeypatch.setattr(row_message, "ROW_READERS_MAX", 2)
    versions = [make_relation(oid) for oid in (1, 2, 3)]

    def reader(relation):
        (found,) = row_message.make_readers([relation], {relation.oid: (0,)}).values()
        return found

    first = reader(versions[0])
    assert reader(versions[0]) is first
    assert [reader(version).relation for version in versions] == versions
    assert len(row_message._READERS) == 1
    assert reader(versions[0]) is not first
