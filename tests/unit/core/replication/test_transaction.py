"""A transaction decodes what is wanted, with the right version, and nothing else."""

import pytest

from fixtures.pgoutput import (
    encode_delete,
    encode_insert,
    encode_relation,
    encode_truncate,
    encode_update,
    make_relation,
    make_transaction,
)
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, RowChange, Unknown
from heliograph.core.replication.transaction import NO_ROWS, Transaction
from heliograph.errors import LocalProtocolError, RemoteProtocolError

NOTES = make_relation(1, name="notes")
TAGS = make_relation(2, name="tags")


def test_one_row_is_decoded_without_folding():
    transaction = make_transaction([NOTES], [encode_insert(1, ["1", "a"])])
    (change,) = transaction.decode({1: (0,)})
    assert (change.kind, change.relation, change.sequence, change.new, change.old) == (
        ChangeKind.INSERT,
        NOTES,
        0,
        ("1", "a"),
        None,
    )
    assert transaction.row_count == 1
    assert transaction.size_bytes == len(encode_insert(1, ["1", "a"]))


def test_rows_of_other_tables_are_not_decoded():
    broken = encode_insert(2, ["1"])  # a column is missing
    transaction = make_transaction([NOTES, TAGS], [broken, encode_insert(1, ["1", "a"])])
    (change,) = transaction.decode({1: (0,)})
    assert change.sequence == 1
    assert transaction.decode({3: None}) == ()
    with pytest.raises(RemoteProtocolError):
        transaction.decode({2: (0,)})


def test_changes_of_several_tables_come_in_their_order():
    transaction = make_transaction(
        [NOTES, TAGS],
        [
            encode_insert(1, ["1", "a"]),
            encode_insert(2, ["1", "t"]),
            encode_delete(1, ["2", "b"]),
            encode_update(2, ["3", "u"], old=["3", "t"]),
        ],
    )
    changes = transaction.decode({1: (0,), 2: (0,)})
    assert [(change.relation.name, change.sequence) for change in changes] == [
        ("notes", 0),
        ("tags", 1),
        ("notes", 2),
        ("tags", 3),
    ]
    assert transaction.relations == (NOTES, TAGS)


def test_each_row_is_decoded_with_the_version_that_preceded_it():
    later = make_relation(1, ("id", "body", "extra"), name="notes")
    renamed = make_relation(1, ("id", "text"), name="notes")
    transaction = make_transaction(
        [NOTES],
        [
            encode_insert(1, ["1", "a"]),
            encode_relation(later),
            encode_insert(1, ["2", "b", "x"]),
            encode_relation(renamed),
            encode_relation(later),  # described twice before it is used
            encode_insert(1, ["3", "c", "y"]),
            encode_relation(renamed),
            encode_insert(1, ["4", "d"]),
        ],
    )
    changes = transaction.decode({1: (0,)})
    assert [change.relation for change in changes] == [NOTES, later, later, renamed]
    assert [change.new for change in changes] == [
        ("1", "a"),
        ("2", "b", "x"),
        ("3", "c", "y"),
        ("4", "d"),
    ]
    assert transaction.relations[0] == NOTES
    assert transaction.relations[-1] == renamed


def test_rows_before_a_truncate_of_their_table_left_no_trace():
    transaction = make_transaction(
        [NOTES, TAGS],
        [
            encode_insert(1, ["1", "a"]),
            encode_insert(2, ["1", "t"]),
            encode_truncate([1]),
            encode_insert(1, ["1", "b"]),
        ],
    )
    assert transaction.truncated == (NOTES,)
    changes = transaction.decode({1: (0,), 2: (0,)})
    assert [(change.kind, change.new) for change in changes] == [
        (ChangeKind.INSERT, ("1", "t")),
        (ChangeKind.INSERT, ("1", "b")),
    ]


def test_a_single_row_before_or_after_a_truncate():
    row = encode_insert(1, ["1", "a"])
    before = make_transaction([NOTES], [row, encode_truncate([1])])
    assert before.decode({1: (0,)}) == ()
    after = make_transaction([NOTES], [encode_truncate([1]), row])
    assert len(after.decode({1: (0,)})) == 1
    other = make_transaction([NOTES, TAGS], [row, encode_truncate([2])])
    assert len(other.decode({1: (0,)})) == 1


def test_a_transaction_without_rows_has_no_changes():
    assert make_transaction([NOTES], [encode_truncate([1])]).decode({1: (0,)}) == ()


def test_an_update_without_old_row_has_its_key_as_old():
    relation = make_relation(1, identity=ReplicaIdentity.DEFAULT)
    transaction = make_transaction([relation], [encode_update(1, ["1", "a"])])
    (change,) = transaction.decode({1: None})
    assert change.old == ("1", Unknown.NOT_SENT)
    assert not change.old_is_full


def test_the_mark_of_an_oversize_transaction_can_not_be_decoded():
    mark = Transaction(1, 2, 3, 4, (NOTES,), (), (), 5, 0, is_too_large=True, raw_rows=NO_ROWS)
    with pytest.raises(LocalProtocolError, match="segments"):
        mark.decode({1: None})


def test_changes_have_the_attributes_of_the_contract():
    (change,) = make_transaction([NOTES], [encode_delete(1, ["1", "a"])]).decode({1: (0,)})
    assert isinstance(change, RowChange)
    assert change.new is None
    assert change.old_is_full
