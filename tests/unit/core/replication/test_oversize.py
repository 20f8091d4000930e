"""Oversize transactions: segments, repeated keys, bounds."""

import pytest

from fixtures.pgoutput import (
    MemorySpill,
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
from heliograph import limits
from heliograph.core.replication.oversize import OversizeBounds, OversizeTransaction
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind
from heliograph.errors import LimitExceededError, RemoteProtocolError

NOTES = make_relation(1)
TAGS = make_relation(2, name="tags")


def make_oversize(messages, *, relations=(NOTES, TAGS), **bounds):
    described = [encode_relation(relation) for relation in relations]
    stream = [encode_begin(0x10), *described, *messages, encode_commit(0x10)]
    (oversize,) = receive_all(make_assembler(memory_bytes=0), stream)
    return OversizeTransaction(oversize.mark, oversize._spill, bounds=OversizeBounds(**bounds))


def test_segments_are_bounded_and_in_order():
    oversize = make_oversize(
        [encode_insert(1, [str(number), "a"]) for number in range(25)], segment_rows=10
    )
    segments = [segment for segment in oversize.segments({1: (0,)}) if segment]
    assert [len(segment) for segment in segments] == [10, 10, 5]
    assert [change.sequence for segment in segments for change in segment] == list(range(25))


def test_the_caller_gets_its_turn_while_nothing_is_found():
    rows = [encode_insert(1, [str(number), "a"]) for number in range(100)]
    oversize = make_oversize([*rows, encode_insert(2, ["1", "t"])], segment_rows=10)
    segments = list(oversize.segments({2: (0,)}))
    assert len(segments) > 20
    assert [change.new for segment in segments for change in segment] == [("1", "t")]


def test_repeated_keys_are_folded_and_come_where_their_last_row_stood():
    oversize = make_oversize(
        [
            encode_update(1, ["1", "b"], old=["1", "a"]),
            encode_insert(1, ["2", "x"]),
            encode_insert(2, ["1", "t"]),
            encode_update(1, ["1", "c"], old=["1", "b"]),
            encode_delete(2, ["1", "t"]),
            encode_insert(1, ["3", "y"]),
        ],
        segment_rows=2,
    )
    segments = [segment for segment in oversize.segments({1: (0,), 2: (0,)}) if segment]
    assert [[change.sequence for change in segment] for segment in segments] == [[1], [3], [5]]
    assert segments[1][0].old == ("1", "a")
    assert segments[1][0].new == ("1", "c")


def test_more_repeated_keys_than_one_segment_takes_are_spread():
    rows = [encode_insert(1, [str(number), "a"]) for number in range(5)]
    rows += [encode_update(1, [str(number), "b"], old=[str(number), "a"]) for number in range(5)]
    oversize = make_oversize(rows, segment_rows=2)
    segments = [segment for segment in oversize.segments({1: (0,)}) if segment]
    assert [len(segment) for segment in segments] == [1, 2, 2]
    assert all(change.kind is ChangeKind.INSERT for segment in segments for change in segment)


def test_a_false_suspicion_changes_nothing():
    rows = [encode_insert(1, [str(number), "a"]) for number in range(50)]
    oversize = make_oversize(rows, key_bitmap_bits=8, segment_rows=7)
    changes = [change for segment in oversize.segments({1: (0,)}) for change in segment]
    assert [int(change.new[0]) for change in changes] == list(range(50))


def test_segments_are_bounded_by_bytes_too():
    rows = [encode_insert(1, [str(number), "a" * 100]) for number in range(10)]
    oversize = make_oversize(rows, segment_bytes=250)
    segments = [segment for segment in oversize.segments({1: (0,)}) if segment]
    assert [len(segment) for segment in segments] == [3, 3, 3, 1]


def test_reading_may_begin_in_the_middle():
    rows = [encode_insert(1, [str(number), "a"]) for number in range(6)]
    rows += [encode_update(1, ["1", "b"], old=["1", "a"])]
    rows += [encode_update(1, ["4", "b"], old=["4", "a"])]
    oversize = make_oversize(rows, segment_rows=2)
    for after, told in ((-1, [0, 2, 3, 5, 6, 7]), (2, [3, 5, 6, 7]), (6, [7]), (7, [])):
        segments = oversize.segments({1: (0,)}, after_sequence=after)
        assert [change.sequence for segment in segments for change in segment] == told


def test_several_may_read_at_once_and_other_tables():
    tables = {1: ["1", "a"], 2: ["1", "t"]}
    rows = [encode_insert(oid, row) for oid, row in tables.items()]
    oversize = make_oversize([*rows, encode_insert(1, ["2", "b"])], segment_rows=1)
    first, second = oversize.segments({1: (0,)}), oversize.segments({2: (0,)})
    found = [*zip(first, second, strict=False), *((rest, ()) for rest in first)]
    assert [change.new[0] for one, _ in found for change in one] == ["1", "2"]
    assert [change.new[1] for _, two in found for change in two] == ["t"]


def test_a_transaction_in_memory_is_read_in_segments_as_it_is_decoded():
    rows = [encode_insert(1, [str(number), "a"]) for number in range(3000)]
    rows += [encode_update(1, ["7", "b"], old=["7", "a"]), encode_delete(1, ["9", "a"])]
    stream = [encode_begin(0x10), encode_relation(NOTES), *rows, encode_commit(0x10)]
    (transaction,) = receive_all(make_assembler(), stream)
    oversize = OversizeTransaction.in_memory(transaction)
    segments = [segment for segment in oversize.segments({1: (0,)}) if segment]
    assert [len(segment) for segment in segments] == [1998, 1001]
    decoded = transaction.decode({1: (0,)})
    assert [(c.sequence, c.new) for segment in segments for c in segment] == [
        (change.sequence, change.new) for change in decoded
    ]
    oversize.close()
    assert len(transaction.decode({1: (0,)})) == 2999


def test_no_transaction_in_memory_is_too_large_to_be_read_in_segments():
    """Held versions count for each message, and one message of a FULL table has two of them."""
    count = 3 * limits.OVERSIZE_SEGMENT_ROWS_MAX
    first = [encode_update(1, [str(n), "b"], old=[str(n), "a" * 80]) for n in range(count)]
    last = [encode_delete(1, [str(n), "b"]) for n in range(count)]
    stream = [encode_begin(0x10), encode_relation(NOTES), *first, *last, encode_commit(0x10)]
    (transaction,) = receive_all(make_assembler(), stream)
    oversize = OversizeTransaction.in_memory(transaction)
    found = [change for segment in oversize.segments({1: (0,)}) for change in segment]
    assert [change.kind for change in found] == [ChangeKind.DELETE] * count


def test_too_many_repeated_keys_end_it_before_anything_was_told():
    rows = [encode_insert(1, [str(number), "a"]) for number in range(10)]
    rows += [encode_delete(1, [str(number), "a"]) for number in range(10)]
    oversize = make_oversize(rows, repeated_keys=5)
    told = []
    with pytest.raises(LimitExceededError, match="OVERSIZE_REPEATED_KEYS_MAX = 5"):
        for segment in oversize.segments({1: (0,)}):
            told += segment
    assert told == []


def test_too_many_bytes_of_repeated_keys_end_it():
    rows = [encode_insert(1, ["1", "a" * 1000]), encode_insert(1, ["2", "b"])]
    rows += [encode_update(1, ["1", "c" * 1000], old=["1", "a" * 1000])]
    oversize = make_oversize(rows, repeated_bytes=1000, segment_rows=3)
    with pytest.raises(LimitExceededError, match="OVERSIZE_REPEATED_BYTES_MAX = 1000"):
        list(oversize.segments({1: (0,)}))


def test_versions_that_are_not_held_do_not_count():
    rows = [encode_insert(1, ["1", "a" * 1000])]
    rows += [encode_update(1, ["1", "a" * 1000], old=["1", "a" * 1000]) for _ in range(20)]
    (change,) = [
        change
        for segment in make_oversize(rows, repeated_bytes=5000).segments({1: (0,)})
        for change in segment
    ]
    assert change.kind is ChangeKind.INSERT


def test_rows_before_a_truncate_are_left_out():
    rows = [encode_insert(1, ["1", "a"]), encode_truncate([1]), encode_insert(1, ["1", "b"])]
    (change,) = [
        change for segment in make_oversize(rows).segments({1: (0,)}) for change in segment
    ]
    assert change.new == ("1", "b")


def test_tables_without_a_key_are_not_folded():
    nothing = make_relation(1, key=(), identity=ReplicaIdentity.NOTHING)
    rows = [encode_insert(1, ["1", "a"])] * 3
    oversize = make_oversize(rows, relations=[nothing])
    changes = [change for segment in oversize.segments({1: None}) for change in segment]
    assert [change.sequence for change in changes] == [0, 1, 2]


def test_a_table_that_changes_in_the_middle_keeps_its_versions():
    later = make_relation(1, ("id", "body", "extra"))
    rows = [encode_insert(1, ["1", "a"]), encode_relation(later)]
    rows += [encode_insert(1, ["2", "b", "c"])]
    oversize = make_oversize(rows, relations=[NOTES])
    changes = [change for segment in oversize.segments({1: (0,)}) for change in segment]
    assert [change.relation for change in changes] == [NOTES, later]


def test_nothing_is_read_if_nothing_is_wanted():
    oversize = make_oversize([encode_insert(1, ["1"])])
    assert list(oversize.segments({})) == []
    with pytest.raises(RemoteProtocolError):
        list(oversize.segments({1: (0,)}))


def test_segments_may_be_read_again_until_it_is_closed():
    oversize = make_oversize([encode_insert(1, ["1", "a"])])
    for _ in range(2):
        assert sum(len(segment) for segment in oversize.segments({1: (0,)})) == 1
    spill = oversize._spill
    assert isinstance(spill, MemorySpill)
    oversize.close()
    oversize.close()
    assert spill.is_discarded


def test_the_bounds_are_those_of_the_limits():
    assert OversizeBounds().segment_rows == limits.OVERSIZE_SEGMENT_ROWS_MAX
    assert OversizeBounds().repeated_keys == limits.OVERSIZE_REPEATED_KEYS_MAX
