"""The streaming source against real PostgreSQL 15, 16 and 18: what each kind of change becomes."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from fixtures.reader import Database, RecordingSink, make_source, running, slot_name
from fixtures.waiting import wait_until
from heliograph import limits
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, Unknown
from heliograph.errors import ConfigurationError
from heliograph.ports.change_source import SourceState

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

INSERT, UPDATE, DELETE = ChangeKind.INSERT, ChangeKind.UPDATE, ChangeKind.DELETE
U = Unknown.UNCHANGED_TOAST
N = Unknown.NOT_SENT


@pytest.fixture
def any_database(any_cluster, make_database) -> Iterator[Database]:
    """An empty database on each PostgreSQL version."""
    database = Database(make_database(any_cluster))
    yield database
    database.close()


@pytest.fixture
def database(postgres_url) -> Iterator[Database]:
    """An empty database on the newest version."""
    database = Database(postgres_url)
    yield database
    database.close()


def make_notes(database, *, identity="full"):
    database.run(
        "create table notes (id int primary key, body text, big text)",
        "alter table notes alter big set storage external",
        f"alter table notes replica identity {identity}",
    )
    database.publish("notes")


async def read_changes(database, *statements, transactions):
    """Run statements while a source reads; return what it was told."""
    sink = RecordingSink(keys={database.oid("notes"): (0,)})
    async with running(make_source(database.url), sink):
        await asyncio.to_thread(database.run, *statements)
        await wait_until(lambda: len(sink.transactions) >= transactions)
    return sink


def seen(sink):
    return [(change.kind, change.old, change.new) for change in sink.changes()]


async def test_full_identity_tells_whole_old_rows(any_database):
    make_notes(any_database)
    large = "x" * 10_000
    sink = await read_changes(
        any_database,
        f"insert into notes values (1, 'a', '{large}')",
        "update notes set body = 'b'",
        "update notes set id = 2",
        "delete from notes",
        transactions=4,
    )
    assert seen(sink) == [
        (INSERT, None, ("1", "a", large)),
        (UPDATE, ("1", "a", large), ("1", "b", large)),
        (UPDATE, ("1", "b", large), ("2", "b", large)),
        (DELETE, ("2", "b", large), None),
    ]
    (relation,) = sink.transactions[0].changed_relations
    assert relation.replica_identity is ReplicaIdentity.FULL
    assert (relation.schema, relation.name) == ("public", "notes")
    assert [column.name for column in relation.columns] == ["id", "body", "big"]
    assert [transaction.changed_relations for transaction in sink.transactions[1:]] == [()] * 3


async def test_default_identity_tells_keys_and_leaves_large_values_unknown(any_database):
    make_notes(any_database, identity="default")
    large = "x" * 10_000
    sink = await read_changes(
        any_database,
        f"insert into notes values (1, 'a', '{large}')",
        "update notes set body = null",
        "update notes set id = 2",
        "delete from notes",
        transactions=4,
    )
    assert seen(sink) == [
        (INSERT, None, ("1", "a", large)),
        (UPDATE, ("1", N, N), ("1", None, U)),
        (UPDATE, ("1", N, N), ("2", None, U)),
        (DELETE, ("2", N, N), None),
    ]


async def test_index_identity_tells_the_columns_of_the_index(any_database):
    any_database.run(
        "create table notes (id int primary key, body text not null, big text)",
        "create unique index by_body on notes (body, id)",
        "alter table notes replica identity using index by_body",
    )
    any_database.publish("notes")
    sink = await read_changes(
        any_database,
        "insert into notes values (1, 'a', 'x')",
        "update notes set body = 'b'",
        "delete from notes",
        transactions=3,
    )
    assert seen(sink)[1:] == [
        (UPDATE, ("1", "a", N), ("1", "b", "x")),
        (DELETE, ("1", "b", N), None),
    ]


async def test_versions_within_a_transaction_are_folded(any_database):
    make_notes(any_database)
    any_database.run("insert into notes values (1, 'a'), (2, 'b'), (3, 'c')")
    sink = await read_changes(
        any_database,
        """do $$ begin
             update notes set body = 'z' where id = 1; update notes set body = 'y' where id = 1;
             insert into notes values (4, 'd'); delete from notes where id = 4;
             delete from notes where id = 2; insert into notes values (2, 'again');
             update notes set id = 30 where id = 3; insert into notes values (3, 'new');
           end $$""",
        transactions=1,
    )
    assert seen(sink) == [
        (UPDATE, ("1", "a", None), ("1", "y", None)),
        (UPDATE, ("2", "b", None), ("2", "again", None)),
        (INSERT, None, ("30", "c", None)),
        (UPDATE, ("3", "c", None), ("3", "new", None)),
    ]


async def test_rows_that_exchange_a_deferred_key_are_told_apart(any_database):
    any_database.run(
        "create table notes (id int primary key deferrable initially deferred, body text)",
        "alter table notes replica identity full",
        "insert into notes select n, n::text from generate_series(1, 5) n",
    )
    any_database.publish("notes")
    sink = await read_changes(any_database, "update notes set id = 6 - id", transactions=1)
    after = {change.new[0]: change.new[1] for change in sink.changes()}
    assert after == {"1": "5", "2": "4", "3": "3", "4": "2", "5": "1"}
    assert all(change.kind is UPDATE for change in sink.changes())
    assert all(change.old[0] == change.old[1] for change in sink.changes())


async def test_truncate_names_every_table_and_voids_the_rows_before_it(any_database):
    any_database.run("create table tags (id int primary key, note int)")
    any_database.run(
        "create table notes (id int primary key, body text)",
        "alter table tags add foreign key (note) references notes",
    )
    any_database.publish("notes", "tags")
    sink = await read_changes(
        any_database,
        """do $$ begin insert into notes values (1, 'a'); truncate notes cascade;
           insert into notes values (2, 'b'); end $$""",
        transactions=1,
    )
    assert {relation.name for relation in sink.transactions[0].truncated} == {"notes", "tags"}
    assert seen(sink) == [(INSERT, None, ("2", "b"))]


async def test_what_was_rolled_back_never_comes(any_database):
    make_notes(any_database)
    sink = await read_changes(
        any_database,
        "begin",
        "insert into notes values (1, 'kept')",
        "savepoint s",
        "insert into notes values (2, 'rolled back')",
        "select pg_logical_emit_message(true, 'p', 'rolled back')",
        "rollback to s",
        "select pg_logical_emit_message(true, 'p', 'kept')",
        "insert into notes values (3, 'kept')",
        "commit",
        "begin",
        "insert into notes values (4, 'rolled back')",
        "rollback",
        "insert into notes values (5, 'last')",
        transactions=2,
    )
    assert sink.new_values() == ["1", "3", "5"]
    assert [message.content for message in sink.transactions[0].messages] == [b"kept"]
    (xid,) = any_database.one("select xmin::text from notes where id = 1")
    assert sink.transactions[0].xid == int(xid)


async def test_non_transactional_messages_are_counted_and_not_told(any_database):
    make_notes(any_database)
    source = make_source(any_database.url)
    sink = RecordingSink()
    async with running(source, sink):
        any_database.run(
            "select pg_logical_emit_message(false, 'p', 'at once')",
            "select pg_logical_emit_message(true, 'p', 'with its transaction')",
        )
        await wait_until(lambda: sink.transactions and source.status().messages_ignored)
        assert source.status().messages_ignored == 1
    (transaction,) = sink.transactions
    assert [message.content for message in transaction.messages] == [b"with its transaction"]
    assert transaction.row_count == 0


async def test_a_changed_table_is_told_with_the_transaction_that_shows_it(any_database):
    make_notes(any_database)
    sink = await read_changes(
        any_database,
        "insert into notes values (1, 'a')",
        "begin",
        "insert into notes values (2, 'b')",
        "alter table notes add extra int default 7",
        "insert into notes values (3, 'c')",
        "commit",
        "alter table notes drop big",
        "update notes set body = 'd' where id = 3",
        transactions=3,
    )
    assert [
        [change.new for change in transaction.decode({any_database.oid("notes"): (0,)})]
        for transaction in sink.transactions
    ] == [
        [("1", "a", None)],
        [("2", "b", None), ("3", "c", None, "7")],
        [("3", "d", "7")],
    ]
    told = [
        [[column.name for column in relation.columns] for relation in changed]
        for transaction in sink.transactions
        if (changed := transaction.changed_relations)
    ]
    # ALTER within a transaction rewrites nothing here, so each description comes once.
    assert told[-1] == [["id", "body", "extra"]]
    assert len(told) == 3


async def test_values_are_written_in_the_settings_of_the_stream(any_database):
    any_database.run(
        """create table notes (id int primary key, f float8, at timestamptz, i interval, b bytea,
             flag bool, j jsonb, names text[])""",
        "alter database current set timezone = 'Asia/Tokyo'".replace(
            "current", any_database.url.rsplit("/", 1)[1]
        ),
    )
    any_database.publish("notes")
    sink = await read_changes(
        any_database,
        """insert into notes values (1, 0.1::float8 + 0.2, '2026-11-23 10:00+00',
             '1 year 2 days 03:04', '\\xdeadbeef', true, '{"a": "ä\\u0001"}', '{a,"b c",NULL}')""",
        transactions=1,
    )
    ((_, _, row),) = seen(sink)
    assert row == (
        "1",
        "0.30000000000000004",
        "2026-11-23 10:00:00+00",
        "1 year 2 days 03:04:00",
        "\\xdeadbeef",
        "t",
        '{"a": "ä\\u0001"}',
        '{a,"b c",NULL}',
    )


async def test_a_table_of_another_publication_is_not_read(database):
    make_notes(database)
    database.run("create table other (id int primary key)")
    sink = await read_changes(
        database,
        "insert into other values (1)",
        "insert into notes values (1, 'a')",
        transactions=1,
    )
    assert sink.new_values() == ["1"]


# --- positions ----------------------------------------------------------------------------


async def test_progress_passes_a_position_on_an_idle_server(database, monkeypatch):
    # Only what is asked for brings an answer, not the regular message.
    monkeypatch.setattr(limits, "STANDBY_STATUS_INTERVAL_S", 600.0)
    make_notes(database)
    source = make_source(database.url)
    sink = RecordingSink()
    async with running(source, sink):
        database.run("insert into notes values (1, 'a')")
        (lsn,) = database.one("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")

        def has_passed():
            source.request_progress()
            source.request_progress()
            return sink.progress and sink.progress[-1] >= lsn

        await wait_until(has_passed)
        assert source.status().progress == sink.progress[-1]
    assert sink.progress == sorted(sink.progress)


async def test_quiet_tables_do_not_hold_wal_back(database):
    make_notes(database)
    database.run("create table busy (id int)")
    source = make_source(database.url)
    async with running(source, RecordingSink()):
        before = database.slot("confirmed_flush_lsn")
        database.run("insert into busy select generate_series(1, 10_000)")
        (written,) = database.one("select pg_current_wal_lsn()::text")

        def is_confirmed():
            source.request_progress()
            return database.one(
                "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots"
                " where slot_name = %s",
                written,
                slot_name(database.url),
            )[0]

        await wait_until(is_confirmed)
        assert database.slot("confirmed_flush_lsn") != before


async def test_what_the_sink_does_not_keep_comes_again_after_a_restart(database):
    make_notes(database)
    forgetful = RecordingSink(acknowledges=False)
    async with running(make_source(database.url), forgetful):
        database.run(*[f"insert into notes values ({n}, 'a')" for n in range(5)])
        await wait_until(lambda: len(forgetful.transactions) == 5)
    following = RecordingSink()
    async with running(make_source(database.url), following):
        await wait_until(lambda: len(following.transactions) == 5)
    assert following.new_values() == forgetful.new_values()
    assert [transaction.commit_lsn for transaction in following.transactions] == [
        transaction.commit_lsn for transaction in forgetful.transactions
    ]
    assert forgetful.identities[0].slot_is_new
    assert not following.identities[0].slot_is_new
    last = RecordingSink()
    async with running(make_source(database.url), last):
        database.run("insert into notes values (9, 'new')")
        await wait_until(lambda: last.transactions)
    assert last.new_values() == ["9"]


async def test_the_identity_names_the_history(database, postgres_cluster):
    make_notes(database)
    sink = RecordingSink()
    source = make_source(database.url)
    assert source.status().state is SourceState.STARTING
    async with running(source, sink):
        assert source.status().state is SourceState.STREAMING
        assert source.status().starts == 1
    assert source.status().state is SourceState.WAITING
    (identity,) = sink.identities
    (system,) = database.one("select system_identifier::text from pg_control_system()")
    assert (identity.system_identifier, identity.timeline) == (system, 1)
    assert identity.start_lsn > 0
    assert postgres_cluster.major == 18


# --- oversize -----------------------------------------------------------------------------


async def test_an_oversize_transaction_is_told_in_order_among_the_others(any_database):
    make_notes(any_database)
    sink = RecordingSink(keys={any_database.oid("notes"): (0,)})
    source = make_source(any_database.url, memory_bytes=100_000)
    async with running(source, sink):
        await asyncio.to_thread(
            any_database.run,
            "insert into notes values (0, 'before')",
            "begin",
            "insert into notes select n, repeat('x', 100) from generate_series(1, 5000) n",
            "update notes set body = 'twice' where id % 1000 = 0 and id > 0",
            "delete from notes where id = 7",
            "commit",
            "insert into notes values (9999, 'after')",
        )
        await wait_until(lambda: len(sink.transactions) == 3)
    assert [transaction.is_too_large for transaction in sink.transactions] == [False, True, False]
    (changes,) = sink.oversize
    assert sorted(int(change.new[0]) for change in changes) == [n for n in range(1, 5001) if n != 7]
    assert all(change.kind is INSERT for change in changes)
    twice = {change.new[0] for change in changes if change.new[1] == "twice"}
    assert twice == {"1000", "2000", "3000", "4000", "5000"}
    assert source.status().transactions_oversize == 1


# --- refusals and waiting -----------------------------------------------------------------


async def test_a_login_without_the_right_to_replicate_is_refused(database):
    make_notes(database)
    role = f"plain_{database.url.rsplit('/', 1)[1]}"
    database.run(f"create role {role} login")
    try:
        url = database.url.replace("postgres@", f"{role}@")
        with pytest.raises(ConfigurationError):
            await make_source(url).run(RecordingSink())
    finally:
        database.run(f"drop role {role}")


async def test_a_slot_of_another_purpose_is_left_alone(database):
    make_notes(database)
    name = slot_name(database.url)
    database.connection.execute("select pg_create_physical_replication_slot(%s)", (name,))
    try:
        with pytest.raises(ConfigurationError, match="another database or purpose"):
            await make_source(database.url).run(RecordingSink())
    finally:
        database.connection.execute("select pg_drop_replication_slot(%s)", (name,))


async def test_a_missing_publication_is_waited_for(database):
    database.run("create table notes (id int primary key, body text)")
    source = make_source(database.url)
    sink = RecordingSink()
    async with running(source, sink, wait=False):
        await wait_until(lambda: "heliograph migrate" in source.status().reason)
        assert not sink.identities
        database.publish("notes")
        await wait_until(lambda: sink.identities)
        database.run("insert into notes values (1, 'a')")
        await wait_until(lambda: sink.transactions)


async def test_a_new_slot_waits_for_open_writers_and_says_for_whom(database):
    make_notes(database)
    source = make_source(database.url)
    sink = RecordingSink()
    with psycopg.connect(database.url) as writer:
        writer.execute("insert into notes values (1, 'before the slot')")
        async with running(source, sink, wait=False):
            pid = str(writer.info.backend_pid)
            await wait_until(lambda: pid in source.status().reason)
            assert source.status().state is SourceState.STARTING
            assert not sink.identities
            writer.commit()
            await wait_until(lambda: sink.identities)
            database.run("insert into notes values (2, 'after')")
            await wait_until(lambda: sink.transactions)
    assert sink.identities[0].slot_is_new
    assert sink.new_values() == ["2"]
