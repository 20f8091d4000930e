"""What was decoded for one channel is there for the next one, within bounds."""

from fixtures.transactions import empty_transaction
from heliograph.server.delivery.shared_rows import SharedRows


class Decoding:
    """A transaction that counts how often it was decoded."""

    def __init__(self, commit_lsn, *, rows=1, size_bytes=10):
        self.transaction = empty_transaction(commit_lsn, row_count=rows, size_bytes=size_bytes)
        self.commit_lsn, self.row_count = self.transaction.commit_lsn, rows
        self.size_bytes = size_bytes
        self.decoded = []

    def decode(self, wanted):
        self.decoded.append(dict(wanted))
        return [object()]


def test_the_second_who_reads_a_transaction_gets_the_rows_and_renderings_of_the_first():
    shared, transaction = SharedRows(), Decoding(10)
    first, changes = shared.get(transaction, {7: (0,)})
    first.renderings[1, None, None] = b"{}"
    second, same = shared.get(Decoding(10), {7: (0,)})
    assert same is changes
    assert second.renderings == {(1, None, None): b"{}"}
    assert transaction.decoded == [{7: (0,)}]


def test_who_reads_other_tables_or_by_another_key_gets_rows_of_his_own():
    shared, transaction = SharedRows(), Decoding(10)
    for wanted in ({7: (0,)}, {8: (0,)}, {7: (1,)}):
        shared.get(transaction, wanted)
    assert transaction.decoded == [{7: (0,)}, {8: (0,)}, {7: (1,)}]


def test_the_least_used_goes_first_when_there_are_too_many_rows_or_bytes():
    for bounds in ({"rows_max": 20}, {"bytes_max": 20}):
        shared = SharedRows(**bounds)
        used, unused = Decoding(10, rows=10), Decoding(20, rows=10)
        for transaction in (used, unused, used, Decoding(30, rows=10), used, unused):
            shared.get(transaction, {7: None})
        assert (len(used.decoded), len(unused.decoded)) == (1, 2)
        assert len(shared) == 2


def test_a_transaction_beyond_the_bounds_is_not_kept():
    shared = SharedRows(rows_max=20)
    dispatched, changes = shared.get(Decoding(10, rows=21), {7: None})
    assert dispatched.transaction.commit_lsn == 10
    assert changes
    assert len(shared) == 0


def test_another_history_has_other_rows_at_the_same_position():
    shared, before, after = SharedRows(), Decoding(10), Decoding(10)
    shared.get(before, {7: None})
    shared.restart()
    shared.get(after, {7: None})
    assert (len(before.decoded), len(after.decoded)) == (1, 1)


def test_what_clients_choose_to_see_of_a_row_does_not_pile_up():
    shared, transaction = SharedRows(), Decoding(10, rows=2)
    most = 0
    for choice in range(100):
        dispatched, _ = shared.get(transaction, {7: None})
        dispatched.renderings[choice, None, None] = b"{}"
        most = max(most, len(dispatched.renderings))
    assert most < 12
