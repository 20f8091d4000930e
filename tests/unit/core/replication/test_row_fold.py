"""Folding: what remains of several versions of a row; the rules are in the module."""

import pytest

from fixtures.pgoutput import (
    encode_delete,
    encode_insert,
    encode_update,
    make_relation,
    make_transaction,
)
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, Unknown

INSERT, UPDATE, DELETE = ChangeKind.INSERT, ChangeKind.UPDATE, ChangeKind.DELETE
U = Unknown.UNCHANGED_TOAST
N = Unknown.NOT_SENT
OID = 16384
FULL = make_relation()
DEFAULT = make_relation(identity=ReplicaIdentity.DEFAULT)


def insert(key, body):
    return encode_insert(OID, [key, body])


def update(old_key, old_body, key, body):
    return encode_update(OID, [key, body], old=[old_key, old_body])


def delete(key, body):
    return encode_delete(OID, [key, body])


def fold(*messages, relation=FULL, positions=(0,)):
    """Fold and return (kind, old, new, sequence) of each change."""
    transaction = make_transaction([relation], messages)
    changes = transaction.decode({OID: positions})
    assert all(change.relation == relation for change in changes)
    return [(change.kind, change.old, change.new, change.sequence) for change in changes]


def test_a_row_that_came_and_went_leaves_no_trace():
    assert fold(insert("1", "a"), delete("1", "a")) == []
    assert fold(insert("1", "a"), update("1", "a", "2", "b"), delete("2", "b")) == []


def test_an_inserted_row_is_told_as_it_is_at_the_end():
    assert fold(insert("1", "a"), update("1", "a", "1", "b")) == [(INSERT, None, ("1", "b"), 1)]
    assert fold(insert("1", "a"), update("1", "a", "2", "b")) == [(INSERT, None, ("2", "b"), 1)]


def test_updates_become_one_from_the_first_old_to_the_last_new_version():
    assert fold(
        update("1", "a", "1", "b"), update("1", "b", "1", "c"), update("1", "c", "1", "d")
    ) == [(UPDATE, ("1", "a"), ("1", "d"), 2)]


def test_an_updated_and_deleted_row_is_a_delete_of_its_first_version():
    assert fold(update("1", "a", "1", "b"), delete("1", "b")) == [(DELETE, ("1", "a"), None, 1)]
    assert fold(update("1", "a", "2", "b"), delete("2", "b")) == [(DELETE, ("1", "a"), None, 1)]


def test_a_deleted_and_inserted_key_is_an_update():
    assert fold(delete("1", "a"), insert("1", "b")) == [(UPDATE, ("1", "a"), ("1", "b"), 1)]


def test_a_key_change_that_stands_alone_stays_one_update():
    assert fold(update("1", "a", "2", "a")) == [(UPDATE, ("1", "a"), ("2", "a"), 0)]
    assert fold(update("1", "a", "2", "a"), update("2", "a", "3", "b")) == [
        (UPDATE, ("1", "a"), ("3", "b"), 1)
    ]


def test_a_key_change_and_back_is_an_update_of_that_key():
    assert fold(update("1", "a", "2", "a"), update("2", "a", "1", "b")) == [
        (UPDATE, ("1", "a"), ("1", "b"), 1)
    ]


def test_a_freed_key_that_is_taken_again_is_an_update_of_that_key():
    assert fold(update("1", "a", "2", "a"), insert("1", "new"), update("2", "a", "2", "z")) == [
        (UPDATE, ("1", "a"), ("1", "new"), 1),
        (INSERT, None, ("2", "z"), 2),
    ]


def test_a_row_that_moves_to_the_key_of_a_deleted_one_is_an_update_of_that_key():
    assert fold(delete("2", "b"), update("1", "a", "2", "a")) == [
        (UPDATE, ("2", "b"), ("2", "a"), 1),
        (DELETE, ("1", "a"), None, 1),
    ]


def test_rows_that_move_up_one_by_one_are_told_per_key():
    assert fold(update("2", "b", "3", "b"), update("1", "a", "2", "a")) == [
        (INSERT, None, ("3", "b"), 0),
        (UPDATE, ("2", "b"), ("2", "a"), 1),
        (DELETE, ("1", "a"), None, 1),
    ]


def test_rows_that_exchange_keys_checked_at_commit_are_updates_of_both_keys():
    assert fold(update("1", "a", "2", "a"), update("2", "b", "1", "b")) == [
        (UPDATE, ("1", "a"), ("1", "b"), 1),
        (UPDATE, ("2", "b"), ("2", "a"), 1),
    ]


def test_of_two_rows_that_stand_at_one_key_for_a_while_the_one_that_left_is_followed():
    assert fold(
        update("1", "a", "2", "a"), update("2", "b", "2", "c"), update("2", "c", "1", "c")
    ) == [
        (UPDATE, ("1", "a"), ("1", "c"), 2),
        (UPDATE, ("2", "b"), ("2", "a"), 2),
    ]


def test_without_old_rows_the_keys_alone_are_followed():
    def plain(key, body):
        return encode_update(OID, [key, body])

    def move(old_key, key, body):
        return encode_update(OID, [key, body], old=[old_key, None], kind=b"K")

    def gone(key):
        return encode_delete(OID, [key, None], kind=b"K")

    assert fold(plain("1", "a"), plain("1", "b"), relation=DEFAULT) == [
        (UPDATE, ("1", N), ("1", "b"), 1)
    ]
    assert fold(plain("1", "a"), move("1", "2", "b"), relation=DEFAULT) == [
        (UPDATE, ("1", N), ("2", "b"), 1)
    ]
    assert fold(plain("1", "a"), gone("1"), insert("1", "c"), relation=DEFAULT) == [
        (UPDATE, ("1", N), ("1", "c"), 2)
    ]


def test_unchanged_toast_is_filled_from_an_earlier_version_in_the_transaction():
    assert fold(insert("1", "large"), encode_update(OID, ["1", U]), relation=DEFAULT) == [
        (INSERT, None, ("1", "large"), 1)
    ]
    assert fold(
        encode_update(OID, ["1", "large"]), encode_update(OID, ["1", U]), relation=DEFAULT
    ) == [(UPDATE, ("1", N), ("1", "large"), 1)]


def test_unchanged_toast_is_never_filled_from_another_row():
    gone = encode_delete(OID, ["1", None], kind=b"K")
    move = encode_update(OID, ["1", U], old=["2", None], kind=b"K")
    assert fold(gone, move, relation=DEFAULT) == [
        (UPDATE, ("1", N), ("1", U), 1),
        (DELETE, ("2", N), None, 1),
    ]
    assert fold(encode_update(OID, ["1", U]), encode_update(OID, ["1", U]), relation=DEFAULT) == [
        (UPDATE, ("1", N), ("1", U), 1)
    ]


def test_equal_rows_without_a_key_are_counted():
    assert fold(
        delete("1", "a"), delete("1", "a"), insert("1", "b"), insert("1", "b"), positions=None
    ) == [
        (DELETE, ("1", "a"), None, 0),
        (DELETE, ("1", "a"), None, 1),
        (INSERT, None, ("1", "b"), 2),
        (INSERT, None, ("1", "b"), 3),
    ]
    assert fold(delete("1", "a"), delete("1", "a"), insert("1", "a"), positions=None) == [
        (DELETE, ("1", "a"), None, 1),
        (UPDATE, ("1", "a"), ("1", "a"), 2),
    ]


def test_two_equal_rows_that_change_alike_are_two_updates():
    assert fold(update("1", "a", "1", "b"), update("1", "a", "1", "b"), positions=None) == [
        (UPDATE, ("1", "a"), ("1", "b"), 0),
        (UPDATE, ("1", "a"), ("1", "b"), 1),
    ]


def test_a_table_without_identity_tells_every_insert():
    nothing = make_relation(key=(), identity=ReplicaIdentity.NOTHING)
    assert fold(insert("1", "a"), insert("1", "a"), relation=nothing, positions=None) == [
        (INSERT, None, ("1", "a"), 0),
        (INSERT, None, ("1", "a"), 1),
    ]


def test_a_row_is_followed_across_a_change_of_its_table():
    from fixtures.pgoutput import encode_relation

    later = make_relation(columns=("id", "body", "extra"))
    transaction = make_transaction(
        [FULL],
        [
            insert("1", "a"),
            update("2", "x", "2", "y"),
            encode_relation(later),
            encode_update(OID, ["1", "b", "5"], old=["1", "a", "5"]),
            encode_update(OID, ["2", "z", "5"], old=["2", "y", "5"]),
            encode_update(OID, ["2", "zz", "5"], old=["2", "z", "5"]),
        ],
    )
    first, second = transaction.decode({OID: (0,)})
    assert (first.kind, first.new, first.old) == (INSERT, ("1", "b", "5"), None)
    assert (second.kind, second.new, second.old) == (UPDATE, ("2", "zz", "5"), ("2", "x", N))
    assert not second.old_is_full
    assert first.relation == second.relation == later
    deleted = make_transaction(
        [FULL],
        [
            update("2", "x", "2", "y"),
            encode_relation(later),
            encode_delete(OID, ["2", "y", "5"]),
            encode_insert(OID, ["3", "y", "5"]),
        ],
    ).decode({OID: (0,)})
    assert [(change.kind, change.relation, change.old) for change in deleted] == [
        (DELETE, FULL, ("2", "x")),
        (INSERT, later, None),
    ]


@pytest.mark.parametrize("positions", [(0,), None])
def test_an_update_that_changes_nothing_remains_an_update(positions):
    assert fold(update("1", "a", "1", "a"), update("1", "a", "1", "a"), positions=positions) == [
        (UPDATE, ("1", "a"), ("1", "a"), 1)
    ]
