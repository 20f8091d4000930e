"""Which transactions count as late writers of a table, and what is said when they have ended."""

import asyncio
import contextlib

import pytest

from heliograph import limits
from heliograph.core.replication.snapshot import Snapshot
from heliograph.errors import UnavailableError
from heliograph.postgres.table_writers import TableWriters
from heliograph.server.delivery import late_writers
from heliograph.server.delivery.late_writers import LateWriters

pytestmark = pytest.mark.asyncio


class Database:
    """Knows who writes to which table."""

    def __init__(self):
        self.writers = {}
        self.next_xid = 1_000
        self.looks = 0
        self.is_out_of_reach = False
        self.while_looking = lambda: None

    @contextlib.asynccontextmanager
    async def connection(self):
        if self.is_out_of_reach:
            raise UnavailableError("no answer")
        yield self

    async def read(self, _connection, tables):
        self.looks += 1
        found = {oid: set(xids) for oid, xids in self.writers.items() if oid in tables and xids}
        self.while_looking()
        return TableWriters(self.next_xid, found)

    async def read_next(self, _connection):
        running = frozenset(xid for xids in self.writers.values() for xid in xids)
        # Nobody behind the first who runs has ended.
        xmax = min(running, default=self.next_xid)
        return Snapshot(xmax, xmax, frozenset()), self.next_xid


@pytest.fixture
def database(monkeypatch):
    made = Database()
    monkeypatch.setattr(late_writers, "read_table_writers", made.read)
    monkeypatch.setattr(late_writers, "read_next_xid", made.read_next)
    return made


async def note_new(late, database, table, published_by):
    """Read a table for its first subscriber."""
    suspicions = late.suspicions
    writers = await database.read(None, [table])
    late.note_new(table, writers, published_by, suspicions)


@pytest.fixture
def late(database):
    made = LateWriters(database)
    made.ended = []
    made.on_ended = made.ended.append
    return made


async def test_a_table_is_done_with_when_the_last_of_its_writers_has_ended(database, late):
    database.writers = {7: {10, 11}, 8: {12}}
    await late.look([7, 9])
    assert (late.concern([7]), late.concern([8, 9]), len(late)) == (True, False, 1)
    database.writers = {7: {11}}
    await late.check()
    assert (late.ended, late.concern([7])) == ([], True)
    # Who writes now began behind the change of the publication.
    database.writers = {7: {20}}
    await late.check()
    assert (late.ended, late.concern([7]), len(late)) == ([7], False, 0)


async def test_of_a_table_that_was_not_known_only_who_is_older_than_its_publication_is_late(
    database, late
):
    database.writers = {7: {10, 30}, 8: {30}}
    for table in (7, 8, 9):
        await note_new(late, database, table, (5, 20))
    database.writers = {7: {30}, 8: {30}}
    assert (late.concern([7]), late.concern([8]), late.concern([9])) == (True, False, False)
    await late.check()
    assert late.ended == [7]


async def test_once_a_whole_publication_has_changed_every_writer_of_a_new_table_is_late(
    database, late
):
    late.publication_changed(None)
    database.writers = {8: {30}}
    await note_new(late, database, 8, (5, 20))
    assert late.concern([8])


@pytest.mark.parametrize("named", [None, [7]])
async def test_who_was_in_doubt_when_a_table_was_read_is_late_if_the_change_is_told_afterwards(
    database, late, named
):
    database.writers = {7: {30}}
    await note_new(late, database, 7, (5, 20))
    assert not late.concern([7])
    # It has ended when the message comes; who has loaded meanwhile may lack what it wrote.
    database.writers = {}
    late.publication_changed(named)
    assert late.concern([7])
    await late.check()
    assert (late.concern([7]), late.ended) == (False, [7])
    late.publication_changed(named)
    assert not late.concern([7])


async def test_who_began_after_a_suspected_table_was_read_is_not_late(database, late):
    late.publication_changed([7])
    database.next_xid = 40
    await note_new(late, database, 7, (5, 20))
    database.writers, database.next_xid = {7: {40}}, 41
    await late.check()
    assert (late.concern([7]), late.ended) == (False, [])


async def test_who_wrote_when_a_suspected_table_was_read_is_late(database, late):
    late.publication_changed([7])
    database.writers, database.next_xid = {7: {30}}, 40
    await note_new(late, database, 7, (5, 20))
    # It has ended before anybody has looked at what is suspected.
    database.writers = {}
    await late.check()
    assert late.ended == [7]


async def test_what_is_suspected_while_a_table_is_read_is_of_later(database, late):
    database.next_xid = 40
    database.while_looking = lambda: late.publication_changed([7])
    await note_new(late, database, 7, (5, 20))
    database.while_looking = lambda: None
    database.writers, database.next_xid = {7: {50}}, 60
    await late.check()
    assert late.concern([7])


async def test_a_table_whose_publication_changed_counts_as_having_some_until_it_is_looked_at(
    database, late
):
    late.publication_changed([7, 8])
    database.writers = {7: {10}}
    assert [late.concern([7]), late.concern([8])] == [True, True]
    await late.check()
    assert (late.concern([7]), late.concern([8]), late.ended) == (True, False, [])


async def test_a_change_that_was_there_when_a_table_was_read_makes_nobody_late_who_began_later(
    database, late
):
    database.next_xid = 40
    await note_new(late, database, 7, (20,))
    late.publication_changed([7])
    database.writers = {7: {40, 50}}
    await late.look_back([7])
    assert not late.concern([7])
    # It began while the transaction that changed the publication was open.
    database.writers = {7: {30, 50}}
    await late.look_back([7])
    assert late.concern([7])


async def test_a_change_that_comes_later_makes_everybody_late_who_writes(database, late):
    database.next_xid = 40
    await note_new(late, database, 7, (20,))
    database.writers, database.next_xid = {7: {50}}, 70
    await late.look([7])
    assert late.concern([7])
    database.writers, database.next_xid = {7: {60}}, 55
    await late.check()
    await late.look_back([7])
    assert late.concern([7])


async def test_what_is_suspected_while_it_is_looked_at_is_looked_at_again(database, late):
    late.suspect([7])
    database.while_looking = lambda: late.suspect([7])
    await late.check()
    assert late.concern([7])
    database.while_looking = lambda: None
    await late.check()
    assert not late.concern([7])


async def test_who_is_suspected_is_looked_at_at_once_while_others_are_waited_for(
    database, late, monkeypatch
):
    monkeypatch.setattr(limits, "LATE_WRITERS_CHECK_INTERVAL_S", 1_000.0)
    database.writers = {7: {10}}
    watching = asyncio.create_task(late.run())
    await late.look([7])
    for _ in range(10):
        await asyncio.sleep(0)
    late.suspect([8])
    for _ in range(10):
        await asyncio.sleep(0)
    assert (late.concern([7]), late.concern([8])) == (True, False)
    watching.cancel()


async def test_who_is_unknown_to_a_database_that_was_put_back_is_not_waited_for(database, late):
    database.writers = {7: {5_000}}
    await late.look([7])
    await late.check()
    assert (late.concern([7]), late.ended) == (False, [7])


async def test_it_goes_on_while_the_database_is_out_of_reach_and_asks_nobody_afterwards(
    database, late, monkeypatch
):
    monkeypatch.setattr(limits, "LATE_WRITERS_CHECK_INTERVAL_S", 0.0)
    database.is_out_of_reach = True
    watching = asyncio.create_task(late.run())
    late.suspect([7])
    for _ in range(10):
        await asyncio.sleep(0)
    assert late.concern([7])
    database.is_out_of_reach = False
    while late.concern([7]):
        await asyncio.sleep(0)
    looks = database.looks
    for _ in range(10):
        await asyncio.sleep(0)
    assert database.looks == looks
    watching.cancel()
