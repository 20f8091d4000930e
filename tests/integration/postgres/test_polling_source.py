"""The polling source: the same promises without a replication connection, only later."""

import asyncio
from collections.abc import Iterator

import pytest

from fixtures.reader import Database, RecordingSink, make_source, running, slot_name
from fixtures.waiting import wait_until
from heliograph import limits
from heliograph.core.replication.row_change import ChangeKind
from heliograph.errors import ConfigurationError
from heliograph.ports.change_source import SourceState
from heliograph.postgres.polling_source import PollingSource
from heliograph.postgres.replication_connection import reader_name

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


@pytest.fixture
def database(any_cluster, make_database) -> Iterator[Database]:
    database = Database(make_database(any_cluster))
    database.run(
        "create table notes (id int primary key, body text)",
        "alter table notes replica identity full",
    )
    database.publish("notes")
    yield database
    database.close()


def polling(database, **options):
    return make_source(database.url, PollingSource, **options)


async def test_changes_arrive_whole_in_order_and_once(database):
    source = polling(database)
    sink = RecordingSink(keys={database.oid("notes"): (0,)}, acknowledges=False)
    async with running(source, sink):
        for number in range(20):
            database.run(
                f"insert into notes values ({number}, 'a'), ({number + 100}, 'b')",
                f"update notes set body = 'c' where id = {number}",
            )
        await wait_until(lambda: len(sink.transactions) == 40)
        # Nothing is confirmed, so that the next poll sees everything again.
        await wait_until(lambda: source.status().transactions_repeated >= 40)
        status = source.status()
    assert [transaction.row_count for transaction in sink.transactions] == [2, 1] * 20
    assert status.state is SourceState.STREAMING
    assert status.transactions == len(sink.transactions)
    assert {change.kind for change in sink.changes()} == {ChangeKind.INSERT, ChangeKind.UPDATE}
    assert [len(transaction.changed_relations) for transaction in sink.transactions][1:] == [0] * 39


async def test_only_what_the_sink_keeps_is_confirmed(database):
    forgetful = RecordingSink(acknowledges=False)
    async with running(polling(database), forgetful):
        database.run("insert into notes values (1, 'a')")
        await wait_until(lambda: forgetful.transactions)
    sink = RecordingSink()
    source = polling(database)
    async with running(source, sink):
        await wait_until(lambda: sink.transactions)
        before = database.slot("confirmed_flush_lsn")
        await wait_until(lambda: database.slot("confirmed_flush_lsn") != before)
    assert sink.new_values() == forgetful.new_values() == ["1"]
    following = RecordingSink()
    async with running(polling(database), following):
        database.run("insert into notes values (2, 'b')")
        await wait_until(lambda: following.transactions)
    assert following.new_values() == ["2"]


async def test_progress_follows_the_server_also_when_idle(database):
    source = polling(database)
    sink = RecordingSink()
    database.run("create table other (id int)")
    async with running(source, sink):
        database.run("insert into other select generate_series(1, 1000)")
        (lsn,) = database.one("select pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        source.request_progress()
        await wait_until(lambda: sink.progress and sink.progress[-1] >= lsn)


async def test_a_backlog_larger_than_a_poll_is_read_although_nothing_is_kept(database, monkeypatch):
    monkeypatch.setattr(limits, "POLL_CHANGES_MAX", 20)
    sink = RecordingSink(acknowledges=False)
    async with running(polling(database), sink):
        await asyncio.to_thread(
            database.run, *[f"insert into notes values ({n}, 'a')" for n in range(100)]
        )
        await wait_until(lambda: len(sink.transactions) == 100)
    assert sink.new_values() == [str(number) for number in range(100)]


async def test_oversize_transactions_are_polled_too(database, monkeypatch):
    """One transaction larger than memory and than a poll is whole, and comes once."""
    monkeypatch.setattr(limits, "POLL_CHANGES_MAX", 100)
    sink = RecordingSink(keys={database.oid("notes"): (0,)}, acknowledges=False)
    source = polling(database, memory_bytes=10_000)
    async with running(source, sink):
        database.run(
            "insert into notes select n, 'a' from generate_series(1, 5000) n",
            "insert into notes values (0, 'after')",
        )
        await wait_until(lambda: len(sink.transactions) == 2)
        await wait_until(lambda: source.status().transactions_repeated)
    (changes,) = sink.oversize
    assert [int(change.new[0]) for change in changes] == list(range(1, 5001))
    assert sink.new_values() == ["0"]
    following = RecordingSink(keys={database.oid("notes"): (0,)})
    async with running(polling(database, memory_bytes=10_000), following):
        await wait_until(lambda: len(following.transactions) == 2)
    assert [len(changes) for changes in following.oversize] == [5000]


async def test_a_broken_session_is_replaced(database):
    sink = RecordingSink()
    async with running(polling(database), sink):
        database.run("insert into notes values (1, 'a')")
        await wait_until(lambda: sink.transactions)
        database.run(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            f" where application_name = '{reader_name(slot_name(database.url))}'"
        )
        database.run("insert into notes values (2, 'b')")
        await wait_until(lambda: len(sink.transactions) == 2)
        assert sink.losses
    assert sink.new_values() == ["1", "2"]


async def test_a_slot_that_somebody_moves_between_two_polls_is_noticed(database, monkeypatch):
    monkeypatch.setattr(limits, "POLL_INTERVAL_S", 60.0)
    source = polling(database)
    sink = RecordingSink()
    async with running(source, sink):
        database.run("insert into notes values (1, 'a')")
        source.request_progress()
        await wait_until(lambda: sink.transactions)
        database.run("insert into notes values (2, 'b')")
        database.one(
            "select pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())",
            slot_name(database.url),
        )
        database.run("insert into notes values (3, 'c')")
        source.request_progress()
        await wait_until(lambda: len(sink.transactions) == 2)
    assert sink.new_values() == ["1", "3"]
    assert sink.events == ["started", "lost", "started"]
    assert "moved by somebody else" in sink.losses[0]
    assert sink.identities[1].start_lsn > sink.transactions[0].end_lsn


async def test_a_stalled_sink_gets_nothing_until_it_has_room(database):
    sink = RecordingSink()
    async with running(polling(database), sink):
        sink.stall()
        database.run("insert into notes values (1, 'a')")
        await wait_until(lambda: sink.waiting_for_room)
        assert not sink.transactions
        sink.resume()
        await wait_until(lambda: sink.transactions)


async def test_a_second_reader_waits_for_the_first(database):
    first, second = RecordingSink(), RecordingSink()
    waiting = polling(database)
    async with running(polling(database), first), running(waiting, second, wait=False):
        await wait_until(lambda: "another reader" in waiting.status().reason)
        database.run("insert into notes values (1, 'a')")
        await wait_until(lambda: first.transactions)
    assert not second.identities


async def test_a_login_without_the_right_to_replicate_is_refused(database):
    role = f"plain_{database.url.rsplit('/', 1)[1]}"
    database.run(f"create role {role} login")
    try:
        source = make_source(database.url.replace("postgres@", f"{role}@"), PollingSource)
        with pytest.raises(ConfigurationError, match="may not replicate"):
            await source.run(RecordingSink())
    finally:
        database.run(f"drop role {role}")
