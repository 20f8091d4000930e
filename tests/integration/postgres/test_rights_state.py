"""What decides rights is read completely, and nothing else is (visibility.md §6)."""

import psycopg
import pytest
from psycopg import sql

from heliograph.postgres.rights_state import RightsQuestion, read_state

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

SCHEMA = """
create schema s;
create table orders (id int primary key, note text);
create table other (id int primary key, note text);
create view seen as select id from orders;
create function allowed() returns bool language sql stable return true;
create domain positive as int check (value > 0);
create type pair as (a int, b int);
create policy p on orders using (allowed());
"""

# {role} and {group} are roles of this test's own.
CHANGES = [
    "alter policy p on orders using (false)",
    "drop policy p on orders",
    "create policy q on orders as restrictive using (true)",
    "alter table orders enable row level security",
    "alter table orders force row level security",
    "alter table orders add column more int",
    "alter table orders owner to {group}",
    "grant select on orders to {role}",
    "grant select (note) on orders to {role}",
    "create or replace view seen as select id from orders where id > 1",
    "alter view seen set (security_invoker = true)",
    "grant select on seen to {role}",
    "create or replace function allowed() returns bool language sql stable return false",
    "alter function allowed() security definer",
    "revoke execute on function allowed() from public",
    "create function allowed(int) returns bool language sql stable return true",
    "grant usage on schema s to {role}",
    "create operator === (leftarg = int, rightarg = int, function = int4eq)",
    "alter domain positive add check (value < 100)",
    "alter type pair add attribute c int",
    "alter type pair rename attribute a to first",
    "alter type pair alter attribute b type text",
    "alter type pair drop attribute c",
    "alter type pair rename to couple",
    "grant {group} to {role}",
    "alter role {role} noinherit",
    "alter role {role} bypassrls",
    "alter role {role} superuser",
    "alter role {role} rename to {role}_renamed",
]

HARMLESS = [
    "insert into orders values (1, 'x')",
    "update orders set note = 'y'",
    "analyze orders",
    "create index on orders (note)",
    "create table more (id int primary key)",
    "create temporary table more_of_mine (id int primary key)",
    "alter policy r on other using (false)",
    "grant select on other to {role}",
    "alter role {role} set work_mem = '1MB'",
    "select 1",
]


@pytest.fixture
def roles_and_url(any_cluster, make_database):
    url = make_database(any_cluster)
    names = {"role": "role_" + url.rsplit("/", 1)[1], "group": "group_" + url.rsplit("/", 1)[1]}
    with psycopg.connect(url, autocommit=True) as connection:
        for name in names.values():
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        yield names, url
        rows = connection.execute(
            "select rolname from pg_roles where rolname like any(%s)",
            ([f"{name}%" for name in names.values()],),
        ).fetchall()
        for (name,) in rows:
            for statement in ("reassign owned by {} to postgres", "drop owned by {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def states(connection, question):
    return await read_state(await connection.execute(*question.statement()), question)


async def prepare(connection):
    await connection.execute(SCHEMA + "create policy r on other using (true)")
    cursor = await connection.execute("select 'orders'::regclass::oid, 'seen'::regclass::oid")
    relations = await cursor.fetchone()
    return RightsQuestion(reads_definitions=True, relations=tuple(relations))


async def test_every_change_of_rights_changes_the_state_even_when_it_is_undone(roles_and_url):
    names, url = roles_and_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        question = await prepare(connection)
        before = await states(connection, question)
        for change in CHANGES:
            await connection.execute(change.format(**names))
            after = await states(connection, question)
            assert (after.general, after.relations) != (before.general, before.relations), change
            assert after.insert_lsn >= before.insert_lsn
            before = after
        await connection.execute(f"grant select on seen to {names['group']}")
        await connection.execute(f"revoke select on seen from {names['group']}")
        after = await states(connection, question)
        assert after.relations != before.relations


async def test_what_changes_nobody_s_rights_leaves_the_state_as_it_was(roles_and_url):
    names, url = roles_and_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        question = await prepare(connection)
        before = await states(connection, question)
        for change in HARMLESS:
            await connection.execute(change.format(**names))
            after = await states(connection, question)
            assert (after.general, after.relations) == (before.general, before.relations), change


async def test_with_event_triggers_only_roles_are_read(roles_and_url):
    names, url = roles_and_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await prepare(connection)
        question = RightsQuestion(reads_definitions=False)
        before = await states(connection, question)
        await connection.execute("drop policy p on orders")
        assert (await states(connection, question)).general == before.general
        await connection.execute("grant {group} to {role}".format(**names))
        assert (await states(connection, question)).general != before.general


async def test_a_relation_that_is_gone_has_a_state_too(roles_and_url):
    _, url = roles_and_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        question = await prepare(connection)
        before = await states(connection, question)
        await connection.execute("drop view seen")
        after = await states(connection, question)
        assert [
            oid for oid in question.relations if before.relations[oid] != after.relations[oid]
        ] == [question.relations[1]]
