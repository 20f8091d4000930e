"""The reader while things break: nothing lost, nothing twice, and it comes back by itself."""

import asyncio
import contextlib
import math
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest
from psycopg import sql

from fixtures.black_hole import black_hole
from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.reader import PUBLICATION, Database, RecordingSink, make_source, running, slot_name
from fixtures.waiting import wait_until
from heliograph import limits
from heliograph.ports.change_source import SourceState
from heliograph.postgres.replication_connection import reader_name

pytestmark = [pytest.mark.postgres, pytest.mark.fault, pytest.mark.asyncio]


@pytest.fixture
def database(postgres_url) -> Iterator[Database]:
    database = Database(postgres_url)
    database.run("create table notes (id int primary key, body text)")
    database.publish("notes")
    yield database
    database.close()


def set_sender_timeout(database, text):
    name = sql.Identifier(database.url.rsplit("/", 1)[1])
    statement = sql.SQL("alter database {} set wal_sender_timeout = {}")
    database.connection.execute(statement.format(name, sql.Literal(text)))


class Writer:
    """Commits numbered rows, one transaction each, from a thread, whatever breaks meanwhile."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.committed = 0
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        self._thread.join()

    def _write(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._is_stopped.is_set():
                connection.execute("insert into notes values (%s, 'x')", (self.committed + 1,))
                self.committed += 1


def numbers(sink):
    return [int(value) for value in sink.new_values()]


async def test_a_terminated_walsender_loses_nothing_and_repeats_nothing(database):
    sink = RecordingSink(acknowledges=False)
    source = make_source(database.url)
    async with running(source, sink):
        with Writer(database.url) as writer:
            for attempt in range(5):
                enough = len(sink.transactions) + 50
                await wait_until(lambda enough=enough: len(sink.transactions) > enough)
                database.end_stream()
                await wait_until(lambda count=attempt: len(sink.identities) == count + 2)
        await wait_until(lambda: len(sink.transactions) == writer.committed)
    assert numbers(sink) == list(range(1, writer.committed + 1))
    assert sink.events == ["started", *["lost", "started"] * 5]
    assert source.status().transactions_repeated > 0
    assert [identity.slot_is_new for identity in sink.identities] == [True, *[False] * 5]


async def test_a_killed_postgresql_sends_again_and_nothing_comes_twice():
    with run_test_cluster(binaries_of(18)) as cluster:
        database = Database(cluster.create_database())
        database.run("create table notes (id int primary key, body text)")
        database.publish("notes")
        sink = RecordingSink()
        source = make_source(database.url)
        async with running(source, sink):

            def is_confirmed():
                source.request_progress()
                confirmed = database.slot("confirmed_flush_lsn")
                return database.one("select %s::pg_lsn - '0/0'", confirmed)[0] >= _end(sink)

            # What is confirmed behind the first position after a checkpoint is only remembered
            # by the next checkpoint: a crash forgets it.
            database.run("checkpoint", "insert into notes values (0, 'x')")
            await wait_until(lambda: sink.transactions and is_confirmed())
            database.run("checkpoint", *[f"insert into notes values ({n}, 'x')" for n in (1, 2)])
            await wait_until(lambda: len(sink.transactions) == 3 and is_confirmed())
            database.run(*[f"insert into notes values ({n}, 'x')" for n in (3, 4)])
            await wait_until(lambda: len(sink.transactions) == 5 and is_confirmed())
            await asyncio.to_thread(cluster.kill)
            database.close()
            await wait_until(lambda: source.status().state is SourceState.WAITING)
            await asyncio.to_thread(cluster.start_again)
            again = psycopg.connect(database.url, autocommit=True)
            again.execute("insert into notes values (99, 'x')")
            again.close()
            await wait_until(lambda: len(sink.transactions) >= 6)
            repeated = source.status().transactions_repeated
    assert numbers(sink) == [0, 1, 2, 3, 4, 99]
    assert repeated >= 2
    assert not any(identity.slot_is_new for identity in sink.identities[1:])


async def test_a_postgresql_that_is_shut_down_does_not_wait_for_a_slot_that_trails():
    """It waits for readers until they have confirmed everything: ours may not for minutes."""
    with run_test_cluster(binaries_of(18)) as cluster:
        database = Database(cluster.create_database())
        database.run("create table notes (id int primary key, body text)")
        database.publish("notes")
        sink = RecordingSink()
        source = make_source(database.url)
        async with running(source, sink):
            database.run("insert into notes values (1, 'x')")
            await wait_until(lambda: sink.transactions)
            sink.acknowledges = False
            database.run("insert into notes values (2, 'x')")
            await wait_until(lambda: len(sink.transactions) == 2)
            database.close()
            await asyncio.to_thread(cluster.stop)
            # Only a shutdown that nothing had to force is one.
            assert "shut down" in cluster.control_data()["Database cluster state"]
            await asyncio.to_thread(cluster.start_again)
            with psycopg.connect(database.url, autocommit=True) as again:
                again.execute("insert into notes values (3, 'x')")
            await wait_until(lambda: len(sink.transactions) == 3)
    assert numbers(sink) == [1, 2, 3]
    assert [identity.slot_is_new for identity in sink.identities] == [True, False]


async def test_a_connection_that_breaks_in_mid_transaction_delivers_it_once(database):
    sink = RecordingSink()
    async with black_hole(database.url) as relay:
        source = make_source(relay.url)
        async with running(source, sink):
            relay.cut_after(200_000)
            database.run("insert into notes select n, 'x' from generate_series(1, 20_000) n")
            await wait_until(lambda: sink.transactions)
            assert source.status().starts == 2
    assert numbers(sink) == list(range(1, 20_001))
    assert sink.events == ["started", "lost", "started"]


async def test_concurrent_writers_are_told_in_the_order_of_their_commits(database):
    """Each takes a number under a row lock that it holds until its commit."""
    database.run("create table counter (n int)", "insert into counter values (0)")
    take = (
        "with taken as (update counter set n = n + 1 returning n)"
        " insert into notes select n from taken"
    )

    def write():
        with psycopg.connect(database.url, autocommit=True) as connection:
            for _ in range(100):
                connection.execute(take)

    sink = RecordingSink()
    async with running(make_source(database.url), sink):
        await asyncio.gather(*[asyncio.to_thread(write) for _ in range(4)])
        await wait_until(lambda: len(sink.transactions) == 400)
    assert numbers(sink) == list(range(1, 401))


def _end(sink):
    return sink.transactions[-1].end_lsn


async def test_a_sink_stalled_beyond_the_timeout_keeps_its_connection(database):
    set_sender_timeout(database, "2s")
    sink = RecordingSink()
    source = make_source(database.url)
    async with running(source, sink):
        sink.stall()
        # More than the buffers of both sockets take, so that the walsender blocks.
        statement = "insert into notes select n, repeat('x', 1000) from generate_series({}, {}) n"
        for first in range(1, 40_000, 1000):
            await asyncio.to_thread(database.run, statement.format(first, first + 999))
        await wait_until(lambda: database.seconds_of_answers() > 2 * 2)
        received = len(sink.transactions)
        assert received < 40
        sink.resume()
        await wait_until(lambda: len(sink.transactions) == 40)
        assert source.status().starts == 1
    assert numbers(sink) == list(range(1, 40_001))
    assert sink.losses == []


async def test_an_oversize_transaction_may_take_longer_than_the_timeout(database):
    """And one whose connection breaks while it is delivered is delivered once."""
    set_sender_timeout(database, "2s")
    gate = asyncio.Event()
    sink = RecordingSink(oversize_gate=gate)
    source = make_source(database.url, memory_bytes=10_000)
    async with running(source, sink):
        database.run("insert into notes select n, 'x' from generate_series(1, 1000) n")
        await wait_until(lambda: database.seconds_of_answers() > 2 * 2)
        assert source.status().starts == 1
        assert database.slot("active")
        database.end_stream()
        database.run("insert into notes values (2000, 'x')")
        gate.set()
        await wait_until(lambda: len(sink.transactions) == 2)
        assert source.status().starts == 2
    assert [len(changes) for changes in sink.oversize] == [1000]
    assert numbers(sink) == [2000]


async def test_a_silent_link_is_given_up(database):
    set_sender_timeout(database, "1s")
    sink = RecordingSink()
    async with black_hole(database.url) as relay, running(make_source(relay.url), sink):
        database.run("insert into notes values (1, 'x')")
        await wait_until(lambda: len(sink.transactions) == 1)
        relay.freeze()
        database.run("insert into notes values (2, 'x')")
        await wait_until(lambda: len(sink.transactions) == 2)
    assert numbers(sink) == [1, 2]
    assert "nothing came from the server" in sink.losses[0]


# --- who holds the slot -------------------------------------------------------------------


@contextlib.contextmanager
def dead_reader(database, *, application_name):
    """Hold the slot as a reader does that never answers."""
    connection = psycopg.connect(
        database.url, autocommit=True, replication="database", application_name=application_name
    )
    connection.execute("set wal_sender_timeout = 0")
    statement = sql.SQL(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})"
    ).format(sql.Identifier(slot_name(database.url)), sql.Literal(f'"{PUBLICATION}"'))
    connection.execute(statement)
    try:
        yield connection
    finally:
        connection.close()


#: Looks at the slot's holder in which a dead reader would have been found out twice.
LOOKS = 2 * math.ceil(limits.SLOT_HOLDER_SILENT_INTERVALS) + 1


async def make_slot(database):
    async with running(make_source(database.url), RecordingSink()):
        pass
    await wait_until(lambda: not database.slot("active"))


async def test_the_slot_of_a_dead_reader_is_taken_over(database):
    set_sender_timeout(database, "1s")
    await make_slot(database)
    with dead_reader(database, application_name=reader_name(slot_name(database.url))):
        database.run("insert into notes values (1, 'x')")
        source = make_source(database.url)
        sink = RecordingSink()
        async with running(source, sink, wait=False):
            await wait_until(lambda: "in use" in source.status().reason)
            await wait_until(lambda: sink.transactions)
    assert numbers(sink) == [1]


@contextlib.contextmanager
def reader_process(url):
    """Run a reader in a process of its own, whose walsender does not give it up by itself."""
    program = Path(__file__).parents[1] / "fixtures" / "reader_process.py"
    process = subprocess.Popen(
        [sys.executable, str(program), f"{url}?options=-c%20wal_sender_timeout%3D0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def says(process):
    readable, _, _ = select.select([process.stdout], [], [], 20)
    return process.stdout.readline().strip() if readable else "nothing"


async def test_a_stopped_reader_is_replaced_and_harms_nothing_when_it_wakes(database):
    set_sender_timeout(database, "1s")
    source, sink = make_source(database.url), RecordingSink()
    with reader_process(database.url) as zombie:
        assert await asyncio.to_thread(says, zombie) == "started"
        database.run("insert into notes values (1, 'x')")
        assert await asyncio.to_thread(says, zombie) == "1"
        zombie.send_signal(signal.SIGSTOP)
        walsender = database.slot("active_pid")
        database.run("insert into notes values (2, 'x')")
        async with running(source, sink, wait=False):
            await wait_until(lambda: f"process {walsender}" in source.status().reason)
            await wait_until(lambda: sink.transactions)
            zombie.send_signal(signal.SIGCONT)
            # It may have the bytes of 2 in its socket, and then waits for us like any other.
            await wait_until(lambda: database.looks_of_waiting() > LOOKS)
            assert len(sink.identities) == 1
            database.run("insert into notes values (3, 'x')")
            await wait_until(lambda: numbers(sink)[-1] == 3)
        assert "started" in [await asyncio.to_thread(says, zombie) for _ in range(2)]
    assert numbers(sink) in ([1, 2, 3], [2, 3])


async def test_the_slot_of_somebody_else_is_not_taken(database):
    set_sender_timeout(database, "1s")
    await make_slot(database)
    source = make_source(database.url)
    sink = RecordingSink()
    with dead_reader(database, application_name="a colleague's experiment") as foreign:
        async with running(source, sink, wait=False):
            await wait_until(lambda: database.looks_of_waiting() > LOOKS)
            assert str(foreign.info.backend_pid) in source.status().reason
            assert database.sessions_of_waiting(LOOKS) == 1
            assert database.slot("active_pid") == foreign.info.backend_pid
            foreign.close()
            await wait_until(lambda: sink.identities)


async def test_a_living_reader_is_left_alone_and_succeeded(database):
    set_sender_timeout(database, "1s")
    first, second = RecordingSink(), RecordingSink()
    waiting = make_source(database.url)
    async with contextlib.AsyncExitStack() as stack:
        async with running(make_source(database.url), first):
            await stack.enter_async_context(running(waiting, second, wait=False))
            await wait_until(lambda: database.looks_of_waiting() > LOOKS)
            assert "another reader" in waiting.status().reason
            await wait_until(lambda: database.sessions_of_waiting(LOOKS) == 1)
            database.run("insert into notes values (1, 'x')")
            await wait_until(lambda: first.transactions)
            assert len(first.identities) == 1
        database.run("insert into notes values (2, 'x')")
        await wait_until(lambda: second.transactions)
    assert numbers(first) == [1]
    assert numbers(second) == [2]


async def test_a_killed_reader_is_succeeded_by_a_new_one(database):
    with reader_process(database.url) as killed:
        assert await asyncio.to_thread(says, killed) == "started"
        killed.kill()
        sink = RecordingSink()
        async with running(make_source(database.url), sink):
            database.run("insert into notes values (1, 'x')")
            await wait_until(lambda: sink.transactions)
    assert not sink.identities[0].slot_is_new


# --- slots that can not continue ----------------------------------------------------------


async def test_a_dropped_slot_is_made_anew_and_said_to_be_new(database):
    await make_slot(database)
    database.run(f"select pg_drop_replication_slot('{slot_name(database.url)}')")
    sink = RecordingSink()
    async with running(make_source(database.url), sink):
        database.run("insert into notes values (1, 'x')")
        await wait_until(lambda: sink.transactions)
    assert sink.identities[0].slot_is_new


async def test_a_slot_that_is_dropped_under_the_reader_is_made_anew(database):
    sink = RecordingSink()
    async with running(make_source(database.url), sink):
        database.run("insert into notes values (1, 'x')")
        await wait_until(lambda: sink.transactions)

        def is_dropped():
            database.end_stream()
            with contextlib.suppress(psycopg.errors.ObjectInUse):
                database.run(f"select pg_drop_replication_slot('{slot_name(database.url)}')")
                return True
            return False

        await wait_until(is_dropped)
        await wait_until(lambda: sink.identities[-1].slot_is_new and len(sink.identities) > 1)
        database.run("insert into notes values (2, 'x')")
        await wait_until(lambda: len(sink.transactions) == 2)
    assert numbers(sink) == [1, 2]


@pytest.mark.security
async def test_a_slot_whose_wal_is_gone_is_made_anew():
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with run_test_cluster(binaries_of(18), settings) as cluster:
        database = Database(cluster.create_database())
        database.run("create table notes (id int primary key, body text)")
        database.publish("notes")
        await make_slot(database)

        def is_lost():
            database.run("select pg_switch_wal()", "insert into notes values (default_id(), 'x')")
            database.run("checkpoint")
            return database.slot("wal_status") == "lost"

        database.run(
            "create sequence ids",
            "create function default_id() returns int language sql as $$select nextval('ids')$$",
        )
        await wait_until(is_lost)
        sink = RecordingSink()
        async with running(make_source(database.url), sink):
            database.run("insert into notes values (-1, 'x')")
            await wait_until(lambda: sink.transactions)
        database.close()
    assert sink.identities[0].slot_is_new
    assert numbers(sink) == [-1]


@pytest.mark.parametrize("fixture", ["postgres_cluster_15", "postgres_cluster_16"])
async def test_a_publication_that_was_made_again_costs_the_slot(fixture, request, make_database):
    database = Database(make_database(request.getfixturevalue(fixture)))
    database.run("create table notes (id int primary key, body text)")
    database.publish("notes")
    sink = RecordingSink()
    async with running(make_source(database.url), sink):
        with database.connection.transaction():
            database.run(f'drop publication "{PUBLICATION}"')
        database.run("insert into notes values (1, 'unpublished')")
        await wait_until(lambda: sink.losses)
        database.publish("notes")
        await wait_until(lambda: len(sink.identities) > 1 and sink.identities[-1].slot_is_new)
        database.run("insert into notes values (2, 'x')")
        await wait_until(lambda: sink.transactions)
    assert numbers(sink) == [2]
    assert any("publication" in reason for reason in sink.losses)
    database.close()
