"""The change log: bounded, indexed by table, and honest about what it still has."""

import pytest
from hypothesis import given, strategies as st

from heliograph.core.changelog.ring import Ring, RingBounds
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.relation import Relation, RelationColumn, ReplicaIdentity
from heliograph.core.replication.transaction import RawRows, Transaction
from heliograph.errors import LocalProtocolError

RELATIONS = {
    oid: Relation(
        oid, "public", f"t{oid}", ReplicaIdentity.DEFAULT, (RelationColumn("id", 23, -1, True),)
    )
    for oid in (1, 2, 3)
}


def transaction(lsn, *oids, truncated=(), **more):
    given = {
        "commit_lsn": Lsn(lsn),
        "end_lsn": Lsn(lsn + 8),
        "xid": lsn % 1000,
        "commit_time_us": lsn,
        "relations": tuple(RELATIONS[oid] for oid in oids),
        "truncated": tuple(RELATIONS[oid] for oid in truncated),
        "messages": (),
        "row_count": len(oids),
        "size_bytes": 100,
        "is_too_large": False,
        "raw_rows": RawRows(b"x" * 90, b"y" * 10),
    }
    return Transaction(**{**given, **more})


def lsns(found):
    return [kept.commit_lsn for kept in found]


def test_what_was_kept_comes_back_as_it_was():
    ring = Ring(ZERO_LSN)
    kept = transaction(10, 1, 2)
    ring.append(kept, 0.0)
    [found], reached = ring.after(ZERO_LSN, {2}, 10)
    assert found.raw_rows == kept.raw_rows
    assert (found.commit_lsn, found.end_lsn, found.xid) == (10, 18, 10)
    assert found.relations == kept.relations
    assert (found.commit_time_us, found.row_count, reached) == (10, 2, 10)


@pytest.mark.parametrize("more", [{"truncated": (1,)}, {"is_too_large": True}])
def test_special_transactions_are_kept_whole(more):
    ring = Ring(ZERO_LSN, bounds=RingBounds(transactions_max=1))
    kept = transaction(10, 1, **more)
    ring.append(kept, 0.0)
    assert ring.after(ZERO_LSN, {1}, 10)[0] == [kept]
    ring.append(transaction(20, 2), 0.0)
    assert ring.after(Lsn(10), {1}, 10)[0] == []


def test_only_transactions_of_the_tables_after_the_position_up_to_the_limit():
    ring = Ring(ZERO_LSN)
    for lsn, oids in ((10, (1,)), (20, (2,)), (30, (1, 2)), (40, (3,)), (50, (1,))):
        ring.append(transaction(lsn, *oids), 0.0)
    assert lsns(ring.after(ZERO_LSN, {1, 2}, 10)[0]) == [10, 20, 30, 50]
    assert lsns(ring.after(Lsn(20), {1, 2}, 10)[0]) == [30, 50]
    found, reached = ring.after(ZERO_LSN, {1, 2}, 2)
    assert (lsns(found), reached) == ([10, 20], 20)
    assert ring.after(Lsn(50), {1}, 10) == ([], 50)
    assert ring.after(ZERO_LSN, {9}, 10) == ([], 50)


def test_a_transaction_without_tables_moves_the_newest_and_takes_no_place():
    ring = Ring(Lsn(5))
    ring.append(transaction(10), 0.0)
    assert (ring.newest, ring.oldest, ring.floor) == (10, None, 5)
    assert ring.covers(Lsn(10))
    assert not ring.covers(Lsn(11))
    assert not ring.covers(Lsn(4))


def test_order_and_coverage_are_demanded():
    ring = Ring(ZERO_LSN, bounds=RingBounds(transactions_max=1))
    ring.append(transaction(10, 1), 0.0)
    with pytest.raises(LocalProtocolError):
        ring.append(transaction(10, 1), 0.0)
    ring.append(transaction(20, 1), 0.0)
    with pytest.raises(LocalProtocolError):
        ring.after(ZERO_LSN, {1}, 1)


def test_age_count_and_bytes_are_bounded_and_told():
    ring = Ring(ZERO_LSN, bounds=RingBounds(bytes_max=10_000, transactions_max=3, age_s_max=10))
    for number in range(1, 6):
        ring.append(transaction(number * 10, 1), float(number))
    statistics = ring.statistics(5.0)
    assert (statistics.transactions, statistics.evicted, statistics.appended) == (3, 2, 5)
    assert (statistics.oldest_age_s, statistics.tables) == (2.0, 1)
    assert (ring.floor, ring.oldest) == (20, 30)
    ring.evict(14.0)
    assert ring.oldest == 40
    ring.append(transaction(60, 2, size_bytes=20_000), 14.0)
    assert ring.oldest is None
    assert ring.statistics(14.0).oldest_age_s == 0.0
    assert ring.floor == 60


def test_another_history_starts_anew():
    ring = Ring(ZERO_LSN)
    ring.append(transaction(100, 1), 0.0)
    ring.restart(Lsn(7))
    assert (ring.floor, ring.newest, ring.oldest) == (7, 7, None)
    ring.append(transaction(10, 1), 0.0)
    assert lsns(ring.after(Lsn(7), {1}, 9)[0]) == [10]


@given(st.lists(st.sets(st.sampled_from([1, 2, 3])), max_size=60), st.integers(1, 20))
def test_the_ring_gives_what_a_list_of_the_newest_would(tables, most):
    ring = Ring(ZERO_LSN, bounds=RingBounds(transactions_max=most))
    model = []
    for number, oids in enumerate(tables, start=1):
        ring.append(transaction(number * 10, *sorted(oids)), 0.0)
        if oids:
            model = [*model, (number * 10, oids)][-most:]
    for wanted in ({1}, {2, 3}):
        found, _ = ring.after(ring.floor, wanted, 1_000)
        assert lsns(found) == [lsn for lsn, oids in model if oids & wanted]


def test_progress_moves_the_newest_position_and_never_back():
    ring = Ring(Lsn(5))
    ring.pass_to(Lsn(20))
    assert (ring.newest, ring.covers(Lsn(19)), ring.covers(Lsn(20))) == (19, True, False)
    ring.pass_to(Lsn(10))
    assert ring.newest == 19
