"""What the partitions send of old rows, where it is less than their root promises."""

import pytest

from fixtures.pgoutput import (
    encode_begin,
    encode_commit,
    encode_delete,
    encode_insert,
    encode_relation,
    encode_truncate,
    encode_update,
    make_assembler,
    make_relation,
    receive_all,
)
from heliograph.core.replication import assembler as assembler_module
from heliograph.core.replication.partition_leaves import PartitionLeaves
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, Unknown

N = Unknown.NOT_SENT
COLUMNS = ("id", "body")
ROOT = make_relation(1, COLUMNS)
WHOLE = make_relation(2, COLUMNS, name="whole")
LESS = make_relation(3, COLUMNS, name="less", identity=ReplicaIdentity.DEFAULT)
BY_BODY = make_relation(4, COLUMNS, key=("body",), name="by_body", identity=ReplicaIdentity.INDEX)
SILENT = make_relation(5, COLUMNS, key=(), name="silent", identity=ReplicaIdentity.NOTHING)
BY_KEY = make_relation(1, COLUMNS, identity=ReplicaIdentity.DEFAULT)


def narrowed(root, *leaves):
    known = PartitionLeaves()
    for leaf in leaves:
        known.note(root, leaf)
    return known.narrowed(root)


@pytest.mark.parametrize("leaves", [(), (WHOLE,), (SILENT,), (WHOLE, SILENT)])
def test_partitions_that_send_as_much_change_nothing(leaves):
    assert narrowed(ROOT, *leaves) is ROOT


def test_a_partition_with_the_key_only_leaves_the_key():
    found = narrowed(ROOT, WHOLE, LESS)
    assert found.is_partial
    assert found.replica_identity is ReplicaIdentity.FULL
    assert [column.is_key for column in found.columns] == [True, False]


def test_a_key_of_all_columns_is_the_whole_row():
    root = make_relation(1, ("id",))
    leaf = make_relation(2, ("id",), identity=ReplicaIdentity.DEFAULT)
    assert narrowed(root, leaf) is root


def test_partitions_with_several_keys_leave_nothing():
    found = narrowed(ROOT, LESS, BY_BODY)
    assert found.replica_identity is ReplicaIdentity.NOTHING
    assert not any(column.is_key for column in found.columns)


@pytest.mark.parametrize(
    ("leaf", "identity"),
    [
        (WHOLE, ReplicaIdentity.DEFAULT),
        (LESS, ReplicaIdentity.DEFAULT),
        (BY_BODY, ReplicaIdentity.NOTHING),
    ],
)
def test_a_root_with_its_key_needs_the_same_of_its_partitions(leaf, identity):
    found = narrowed(BY_KEY, leaf)
    assert found.replica_identity is identity
    assert found.is_partial is (identity is ReplicaIdentity.NOTHING)


def test_a_partition_that_sends_all_from_now_on_is_forgiven():
    known = PartitionLeaves()
    known.note(ROOT, LESS)
    assert len(known) == 1
    known.note(ROOT, make_relation(3, COLUMNS, name="less"))
    assert known.narrowed(ROOT) is ROOT
    assert len(known) == 0


def told(assembler, *messages, lsn):
    """Feed one transaction; return kind, old row and whether it is whole, of each change."""
    whole = [encode_begin(lsn), *messages, encode_commit(lsn)]
    (transaction,) = receive_all(assembler, whole)
    changes = transaction.decode({1: (0,)})
    return [(change.kind, change.old, change.old_is_full) for change in changes]


def test_rows_are_read_by_what_their_partition_sends():
    assembler = make_assembler()
    describe = [encode_relation(ROOT), encode_relation(WHOLE)]
    told(assembler, *describe, encode_insert(1, ["11", "a"]), lsn=0x10)
    assert told(assembler, encode_delete(1, ["9", None]), lsn=0x20) == [
        (ChangeKind.DELETE, ("9", None), True)
    ]
    describe = [encode_relation(ROOT), encode_relation(LESS)]
    assert told(assembler, *describe, encode_update(1, ["1", "b"]), lsn=0x30) == [
        (ChangeKind.UPDATE, ("1", N), False)
    ]
    assert told(
        assembler,
        encode_update(1, ["2", "b"], old=["1", None]),
        encode_delete(1, ["3", None]),
        encode_delete(1, ["11", "a"]),
        lsn=0x40,
    ) == [
        (ChangeKind.UPDATE, ("1", N), False),
        (ChangeKind.DELETE, ("3", N), False),
        (ChangeKind.DELETE, ("11", "a"), True),
    ]


def test_a_partition_described_in_mid_transaction_counts_from_its_row_on():
    assembler = make_assembler()
    assert told(
        assembler,
        *(encode_relation(ROOT), encode_relation(WHOLE), encode_delete(1, ["11", None])),
        *(encode_relation(ROOT), encode_relation(LESS), encode_delete(1, ["1", None])),
        lsn=0x10,
    ) == [(ChangeKind.DELETE, ("11", None), True), (ChangeKind.DELETE, ("1", N), False)]


def test_old_rows_of_partitions_with_several_keys_tell_nothing():
    assembler = make_assembler()
    describe = [encode_relation(ROOT), encode_relation(BY_BODY)]
    told(assembler, *describe, encode_insert(1, ["1", "a"]), lsn=0x10)
    describe = [encode_relation(ROOT), encode_relation(LESS)]
    assert told(assembler, *describe, encode_delete(1, ["1", None]), lsn=0x20) == [
        (ChangeKind.DELETE, (N, N), False)
    ]


def test_tables_that_are_truncated_together_are_no_partitions_of_each_other():
    assembler = make_assembler()
    other = make_relation(3, COLUMNS, name="other", identity=ReplicaIdentity.DEFAULT)
    assert told(
        assembler,
        *(encode_relation(ROOT), encode_relation(other), encode_truncate([1, 3])),
        encode_delete(1, ["1", None]),
        lsn=0x10,
    ) == [(ChangeKind.DELETE, ("1", None), True)]


def test_what_is_known_of_partitions_outlives_the_connection_and_not_the_history():
    assembler = make_assembler()
    describe = [encode_relation(ROOT), encode_relation(LESS)]
    told(assembler, *describe, encode_delete(1, ["1", None]), lsn=0x10)
    assembler.reset()
    describe = [encode_relation(ROOT), encode_relation(WHOLE)]
    assert told(assembler, *describe, encode_delete(1, ["11", None]), lsn=0x20) == [
        (ChangeKind.DELETE, ("11", N), False)
    ]
    assembler.forget_history()
    assert told(assembler, *describe, encode_delete(1, ["11", None]), lsn=0x30) == [
        (ChangeKind.DELETE, ("11", None), True)
    ]


def test_too_many_partitions_are_forgotten_with_the_connection(monkeypatch):
    monkeypatch.setattr(assembler_module, "RELATIONS_MAX", 0)
    assembler = make_assembler()
    assembler._leaves.note(ROOT, LESS)
    assembler.reset()
    assert len(assembler._leaves) == 0
