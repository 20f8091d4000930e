"""What policies read: guessed from the catalog, again after a change, and kept for a restart."""

import asyncio
import contextlib

import psycopg
import pytest
import pytest_asyncio

from heliograph.core.replication.lsn import Lsn
from heliograph.errors import UnavailableError
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.dependency_publication import DEPENDENCY_PUBLICATION, follow_dependency
from heliograph.postgres.migrate import migrate
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_watch import RightsWatch
from heliograph.server.reads_file import ReadsFile, ReadsInMemory

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

SCHEMA = """
create table members (user_id uuid primary key);
create table owners (user_id uuid primary key);
create table notes (id int primary key);
create function may_see() returns bool language sql stable
  as 'select exists (select from public.members)';
alter table notes enable row level security;
create policy p on notes using (may_see());
"""

PUBLICATIONS = ("supabase_realtime", DEPENDENCY_PUBLICATION)

CHANGES = [
    """create or replace function may_see() returns bool language sql stable
       as 'select exists (select from public.owners)'""",
    "alter policy p on notes using (exists (select from public.owners))",
]


class CountingDatabase(AdminDatabase):
    """Counts how often the policies of a table were looked through."""

    guesses = 0

    async def policy_reads(self, table_oid):
        self.guesses += 1
        return await super().policy_reads(table_oid)


@contextlib.asynccontextmanager
async def following(url, store=None):
    admin = CountingDatabase(url)
    await admin.open()

    async def follow(oid):
        async with admin.connection() as connection:
            return await follow_dependency(connection, oid)

    log = RightsLog()
    rights = RightsWatch(admin.rights_state, reads_definitions=False)
    try:
        yield admin, log, Dependencies(admin, log, rights, follow, store or ReadsInMemory())
    finally:
        await admin.close()


@pytest_asyncio.fixture
async def database(postgres_url):
    """A migrated database with the tables above: its URL, and the oids by name."""
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await migrate(connection)
        await connection.execute(SCHEMA)
        cursor = await connection.execute(
            "select relname, oid::int from pg_class where relname in ('members', 'owners', 'notes')"
        )
        oids = dict(await cursor.fetchall())
        yield postgres_url, oids, connection


async def test_many_joins_look_through_the_policies_of_a_table_once(database):
    url, oids, _ = database
    async with following(url) as (admin, log, dependencies):
        await asyncio.gather(*[dependencies.prepare(oids["notes"]) for _ in range(20)])
        assert admin.guesses == 1
        assert log.follows(oids["members"])
        assert not log.follows(oids["owners"])


@pytest.mark.parametrize("change", CHANGES)
async def test_what_a_changed_definition_reads_is_followed(database, change):
    url, oids, connection = database
    async with following(url) as (_, log, dependencies):
        await dependencies.prepare(oids["notes"])
        await connection.execute(change)
        dependencies.definitions_changed()
        await dependencies.prepare(oids["notes"])
        assert log.follows(oids["owners"])


async def test_what_judging_was_found_to_read_is_known_after_a_restart(database, tmp_path):
    url, oids, _ = database
    notes, members, owners = (oids[name] for name in ("notes", "members", "owners"))
    store = ReadsFile(tmp_path, "slot")
    async with following(url, store) as (_, log, dependencies):
        await dependencies.learn({members, owners})
        dependencies.note_reads({notes, owners}, frozenset({members, owners}))
        assert log.follows(members)
    async with following(url, store) as (_, _, dependencies):
        await dependencies.start(PUBLICATIONS)
        assert dependencies.reads(notes) == {members, owners}
        assert dependencies.readers(members) == {notes, owners}
        # A definition changed: it may be read no more.
        dependencies.forget_kept({notes})
    async with following(url, store) as (_, _, dependencies):
        await dependencies.start(PUBLICATIONS)
        assert (dependencies.reads(notes), dependencies.reads(owners)) == ((), {members, owners})
        dependencies.forget_kept()
    assert store.load() == {}


async def test_a_table_that_was_dropped_meanwhile_is_not_waited_for(database, tmp_path):
    url, oids, connection = database
    store = ReadsFile(tmp_path, "slot")
    async with following(url, store) as (_, _, dependencies):
        await dependencies.learn({oids["owners"]})
        dependencies.note_reads({oids["notes"]}, frozenset({oids["owners"]}))
    await connection.execute("drop table owners cascade")
    async with following(url, store) as (_, _, dependencies):
        await dependencies.start(PUBLICATIONS)
        assert not dependencies.reads(oids["notes"])
        assert not dependencies.unfollowed


async def test_a_change_while_the_policies_are_looked_through_is_not_missed(database):
    url, oids, connection = database
    async with following(url) as (admin, log, dependencies):
        read, may_end = asyncio.Event(), asyncio.Event()
        policy_reads = admin.policy_reads

        async def held_up(table_oid):
            found = await policy_reads(table_oid)
            read.set()
            await may_end.wait()
            return found

        admin.policy_reads = held_up
        async with asyncio.TaskGroup() as group:
            group.create_task(dependencies.prepare(oids["notes"]))
            await read.wait()
            await connection.execute(CHANGES[1])
            dependencies.definitions_changed()
            may_end.set()
        await dependencies.prepare(oids["notes"])
        assert log.follows(oids["owners"])


@pytest.mark.parametrize("publication", PUBLICATIONS)
async def test_what_is_taken_out_of_a_publication_is_followed_again_and_its_readers_are_told(
    database, publication
):
    url, oids, connection = database
    notes, members = oids["notes"], oids["members"]
    await connection.execute(f"alter publication {publication} add table members")
    async with following(url) as (_, log, dependencies):
        told = []
        dependencies.on_new_reads = told.append
        await dependencies.start(PUBLICATIONS)
        await dependencies.prepare(notes)
        before = log.changed_after(Lsn(1), (), [members])
        await connection.execute(f"alter publication {publication} drop table members")
        dependencies.definitions_changed()
        await dependencies.learn({members})
        assert [set(tables) for tables in told] == [{notes}]
        assert log.follows(members)
        # A position from before is of no use any more.
        assert (before, log.changed_after(Lsn(1), (), [members])) == (False, True)
        await dependencies.learn({members})
        assert len(told) == 1


async def test_a_table_that_is_dropped_is_not_missed(database):
    url, oids, connection = database
    async with following(url) as (_, log, dependencies):
        await dependencies.start(PUBLICATIONS)
        await dependencies.prepare(oids["notes"])
        await connection.execute("drop table members cascade")
        dependencies.definitions_changed()
        await dependencies.learn({oids["notes"]})
        assert not log.follows(oids["members"])
        assert not dependencies.unfollowed


async def test_what_could_not_be_looked_up_is_looked_up_again(database, monkeypatch):
    url, oids, connection = database
    async with following(url) as (admin, log, dependencies):
        told = []
        dependencies.on_new_reads = told.append
        await dependencies.start(PUBLICATIONS)
        await dependencies.prepare(oids["notes"])
        await connection.execute(f"alter publication {DEPENDENCY_PUBLICATION} drop table members")
        dependencies.definitions_changed()

        async def out_of_reach():
            raise UnavailableError("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(admin, "take_position", out_of_reach)
            with pytest.raises(UnavailableError):
                await dependencies.learn({oids["members"]})
        assert (told, log.follows(oids["members"])) == ([], False)
        await dependencies.learn({oids["members"]})
        assert (len(told), log.follows(oids["members"])) == (1, True)


async def test_a_change_of_definitions_alone_tells_nobody(database):
    """Neither of a partitioned table, nor of one that has become a partition of it since."""
    url, oids, connection = database
    await connection.execute(
        "create table parts (id int primary key) partition by range (id);"
        "create table part1 partition of parts for values from (0) to (10);"
        "create table alone (id int primary key);"
        "create policy q on notes using (exists (select from parts) or exists (select from alone))"
    )
    query = "select relname, oid::int from pg_class where relname in ('parts', 'part1', 'alone')"
    oids |= dict(await (await connection.execute(query)).fetchall())
    read = {oids[name] for name in ("parts", "part1", "alone", "members")}
    async with following(url) as (_, log, dependencies):
        told = []
        await dependencies.start(PUBLICATIONS)
        await dependencies.prepare(oids["notes"])
        await dependencies.learn(read)
        dependencies.note_reads({oids["notes"]}, frozenset(read))
        dependencies.on_new_reads = told.append
        assert log.follows(oids["parts"])
        for statement in (
            "comment on table notes is 'nothing'",
            "alter table parts attach partition alone for values from (10) to (20)",
            "alter publication supabase_realtime add table parts",
            "alter publication supabase_realtime drop table parts",
        ):
            await connection.execute(statement)
            dependencies.definitions_changed()
            await dependencies.learn(read)
            assert told == [], statement
        assert log.follows(oids["parts"])
