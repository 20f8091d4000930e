"""The assembler: whole transactions only, once, with the table versions they need."""

from array import array

import pytest

from fixtures.pgoutput import (
    TIME_US,
    MemorySpill,
    encode_begin,
    encode_commit,
    encode_insert,
    encode_logical_message,
    encode_origin,
    encode_relation,
    encode_truncate,
    encode_type,
    make_assembler,
    make_relation,
    receive_all,
)
from heliograph import limits
from heliograph.core.replication import assembler as assembler_module
from heliograph.core.replication.assembler import Assembler, AssemblerBounds
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.pgoutput import LogicalMessage
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import LimitExceededError, RemoteProtocolError, StorageError

NOTES = make_relation(1)
TAGS = make_relation(2, name="tags")
ROW = encode_insert(1, ["1", "a"])


def whole(lsn, *messages):
    return [encode_begin(lsn), *messages, encode_commit(lsn)]


def test_nothing_leaves_before_commit():
    assembler = make_assembler()
    assert receive_all(assembler, [encode_begin(0x10), encode_relation(NOTES), ROW]) == []
    assert assembler.is_in_transaction
    (transaction,) = receive_all(assembler, [encode_commit(0x10, 0x40)])
    assert not assembler.is_in_transaction
    assert (transaction.commit_lsn, transaction.end_lsn) == (0x10, 0x40)
    assert (transaction.xid, transaction.commit_time_us) == (700, TIME_US)
    assert transaction.relations == (NOTES,)
    assert not transaction.is_too_large


def test_rows_are_joined_with_compact_ends():
    rows = [encode_insert(1, [str(number), "x" * number]) for number in range(5)]
    (transaction,) = receive_all(make_assembler(), whole(0x10, encode_relation(NOTES), *rows))
    ends = array("I", transaction.raw_rows.ends)
    assert transaction.raw_rows.payload == b"".join(rows)
    assert list(ends) == [sum(map(len, rows[: count + 1])) for count in range(5)]
    assert transaction.size_bytes == len(transaction.raw_rows.payload) + 20


def test_types_and_origins_are_passed_over():
    stream = whole(
        0x10, encode_origin(1, "o"), encode_type(9, "public", "mood"), encode_relation(NOTES), ROW
    )
    (transaction,) = receive_all(make_assembler(), stream)
    assert transaction.row_count == 1


def test_transactional_messages_are_kept_in_order_and_others_counted():
    assembler = make_assembler()
    (transaction,) = receive_all(
        assembler,
        [
            encode_logical_message("x", b"before", transactional=False),
            *whole(
                0x10,
                encode_logical_message("p", b"1", lsn=5),
                encode_logical_message("x", b"within", transactional=False),
                encode_logical_message("q", b"2", lsn=6),
            ),
        ],
    )
    assert transaction.messages == (
        LogicalMessage(transactional=True, lsn=5, prefix="p", content=b"1"),
        LogicalMessage(transactional=True, lsn=6, prefix="q", content=b"2"),
    )
    assert assembler.statistics.messages_ignored == 2


def test_messages_above_their_bound_are_omitted_and_counted():
    small = encode_logical_message("p", b"1234")
    large = encode_logical_message("p", b"123456789")
    (transaction,) = receive_all(make_assembler(message_bytes=10), whole(0x10, small, large, small))
    assert len(transaction.messages) == 2
    assert transaction.messages_omitted == 1
    assert transaction.size_bytes == 10


def test_what_was_handed_out_is_not_handed_out_again():
    assembler = make_assembler()
    described = encode_relation(NOTES)
    assert len(receive_all(assembler, whole(0x10, described, ROW) + whole(0x20, ROW))) == 2
    assembler.reset()
    again = whole(0x10, described, ROW) + whole(0x20, ROW) + whole(0x30, ROW)
    (transaction,) = receive_all(assembler, again)
    assert transaction.commit_lsn == 0x30
    assert assembler.statistics.transactions == 3
    assert assembler.statistics.transactions_repeated == 2
    assert assembler.statistics.rows == 3


def test_a_transaction_cut_off_by_a_reconnect_is_received_again():
    assembler = make_assembler()
    receive_all(assembler, [encode_begin(0x10), encode_relation(NOTES), ROW, ROW])
    assembler.reset()
    (transaction,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW, ROW))
    assert transaction.row_count == 2


def test_another_history_begins_anew():
    assembler = make_assembler()
    receive_all(assembler, whole(0x20, encode_relation(NOTES), ROW))
    assembler.forget_history()
    (transaction,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW))
    assert transaction.commit_lsn == 0x10


def test_tables_seen_first_or_changed_are_told_once():
    assembler = make_assembler()
    later = make_relation(1, ("id", "text"))
    stream = [
        *whole(0x10, encode_relation(NOTES), ROW),
        *whole(0x20, encode_relation(NOTES), ROW),
        *whole(0x30, encode_relation(later), ROW, encode_relation(TAGS)),
        *whole(0x40, ROW),
    ]
    first, second, third, fourth = receive_all(assembler, stream)
    assert first.changed_relations == (NOTES,)
    assert second.changed_relations == ()
    assert third.changed_relations == (later, TAGS)
    assert third.relations == (later,)
    assert fourth.changed_relations == ()
    assembler.reset()
    (fifth,) = receive_all(assembler, whole(0x50, encode_relation(later), ROW))
    assert fifth.changed_relations == ()


def test_a_change_noticed_in_a_repeated_transaction_is_told_with_the_next_one():
    assembler = make_assembler()
    receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW))
    assembler.reset()
    later = make_relation(1, ("id", "text"))
    stream = whole(0x10, encode_relation(NOTES), ROW, encode_relation(later), ROW)
    (transaction,) = receive_all(assembler, stream + whole(0x20, ROW))
    assert transaction.changed_relations == (later,)
    assert transaction.relations == (later,)


@pytest.mark.parametrize(
    "stream",
    [
        [ROW],
        [encode_truncate([1])],
        [encode_commit(0x10)],
        [encode_origin(1, "o")],
        [encode_logical_message("p", b"c")],
        [encode_begin(0x10), encode_begin(0x10)],
        [encode_begin(0x10), ROW],
        [encode_begin(0x10), encode_truncate([1])],
        [encode_begin(0x10), encode_commit(0x11)],
        [encode_begin(0x10), encode_commit(0x10, 0x0F)],
        [encode_begin(0x10), b"I\0"],
        [b""],
    ],
)
def test_messages_out_of_order_are_refused(stream):
    with pytest.raises(RemoteProtocolError):
        receive_all(make_assembler(), stream)


def test_the_server_must_describe_tables_again_after_a_reconnect():
    assembler = make_assembler()
    receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW))
    assembler.reset()
    with pytest.raises(RemoteProtocolError, match="before describing it"):
        receive_all(assembler, whole(0x20, ROW))


def test_a_connection_that_describes_too_many_tables_is_given_up(monkeypatch):
    monkeypatch.setattr(assembler_module, "RELATIONS_MAX", 2)
    assembler = make_assembler()
    described = [encode_relation(make_relation(oid)) for oid in (1, 2, 3)]
    receive_all(assembler, described[:2])
    with pytest.raises(LimitExceededError, match="RELATIONS_MAX = 2"):
        assembler.receive(described[2])
    assembler.reset()
    # The table that gave way counts as new when it comes back.
    (transaction,) = receive_all(assembler, whole(0x10, described[0], ROW))
    assert make_relation(1) in transaction.changed_relations


# --- oversize -------------------------------------------------------------------------------


def oversize_assembler(spills, **bounds):
    def make_spill():
        spills.append(MemorySpill())
        return spills[-1]

    return Assembler(make_spill=make_spill, bounds=AssemblerBounds(**bounds))


def test_a_transaction_above_the_bound_goes_to_a_spill():
    spills = []
    rows = [encode_insert(1, [str(number), "a"]) for number in range(10)]
    assembler = oversize_assembler(spills, memory_bytes=3 * len(ROW))
    (transaction,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), *rows))
    assert isinstance(transaction, OversizeTransaction)
    assert transaction.mark.is_too_large
    assert (transaction.mark.row_count, transaction.mark.relations) == (10, (NOTES,))
    assert transaction.mark.raw_rows.payload == b""
    assert spills[0].rows == rows
    changes = [change for segment in transaction.segments({1: (0,)}) for change in segment]
    assert [change.new[0] for change in changes] == [str(number) for number in range(10)]
    assert assembler.statistics.transactions_oversize == 1
    transaction.close()
    assert spills[0].is_discarded


def test_the_bound_itself_stays_in_memory():
    spills = []
    assembler = oversize_assembler(spills, memory_bytes=2 * len(ROW))
    (transaction,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW, ROW))
    assert isinstance(transaction, Transaction)
    assert not spills


def test_a_reconnect_in_the_middle_of_an_oversize_transaction_discards_its_spill():
    spills = []
    assembler = oversize_assembler(spills, memory_bytes=1)
    receive_all(assembler, [encode_begin(0x10), encode_relation(NOTES), ROW, ROW])
    assembler.reset()
    assert spills[0].is_discarded
    (transaction,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW, ROW))
    assert transaction.mark.row_count == 2
    assembler.reset()
    assert receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW, ROW)) == []
    assert len(spills) == 2


def test_a_disk_that_takes_no_rows_costs_the_rows_and_not_the_stream():
    class FullSpill(MemorySpill):
        def append(self, record):
            if len(self.rows) == 1:
                raise StorageError("disk full")
            super().append(record)

    spill = FullSpill()
    stream = whole(0x10, encode_relation(NOTES), ROW, ROW, ROW, ROW) + whole(0x20, ROW)
    assembler = Assembler(make_spill=lambda: spill, bounds=AssemblerBounds(memory_bytes=20))
    oversize, following = receive_all(assembler, stream)
    assert spill.is_discarded
    with pytest.raises(LimitExceededError, match="did not fit"):
        next(oversize.segments({1: (0,)}))
    oversize.close()
    assert isinstance(following, Transaction) or following.mark.row_count == 1


def test_a_spill_that_can_not_be_made_costs_the_rows_and_not_the_stream():
    def make_spill():
        raise StorageError("no such folder")

    assembler = Assembler(make_spill=make_spill, bounds=AssemblerBounds(memory_bytes=1))
    (oversize,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW, ROW))
    with pytest.raises(LimitExceededError, match="did not fit"):
        next(oversize.segments({1: (0,)}))


def test_a_transaction_above_the_bound_of_the_disk_costs_its_rows():
    spills = []
    assembler = oversize_assembler(spills, memory_bytes=1, spill_bytes=2 * len(ROW))
    (oversize,) = receive_all(assembler, whole(0x10, encode_relation(NOTES), ROW, ROW, ROW))
    assert spills[0].is_discarded
    with pytest.raises(LimitExceededError):
        next(oversize.segments({1: (0,)}))


def test_the_bounds_are_those_of_the_limits():
    bounds = AssemblerBounds()
    assert bounds.memory_bytes == limits.TRANSACTION_BYTES_IN_MEMORY_MAX
    assert bounds.spill_bytes == limits.OVERSIZE_SPILL_BYTES_MAX
