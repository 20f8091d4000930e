"""Rights that change between a commit and its judgement reveal nothing older, whatever changed.

On a database with event triggers, and as a plain owner without them (`visibility.md` §6). The
server is stopped while it should judge, so that every change is judged after the rights changed.
"""

import contextlib
import json

import psycopg
import pytest

from fixtures.raw_client import BOB, connected, stopped, table, write_until

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


# `shown` says whether bob may see a row. `hidden` is a column that he may not SELECT.
SCHEMA = """
drop table if exists notes, notices, marks;
drop function if exists may_see;
create function may_see(shown bool) returns bool language sql stable set search_path = ''
  return shown;
create table notes (id int primary key, shown bool, body text, hidden text);
create table notices (id int primary key, shown bool, body text, hidden text);
alter table notes enable row level security;
alter table notices enable row level security;
alter table notes replica identity full;
alter table notices replica identity full;
create policy p on notes for select to authenticated using (may_see(shown));
create policy p on notices for select to authenticated using (true);
revoke all on notes, notices from authenticated, anon;
grant select (id, shown, body) on notes, notices to authenticated;
alter publication supabase_realtime add table notes, notices;
"""

# What changes, and the table that it concerns: of `notices` nothing is ever judged.
CHANGES = {
    "policy": ("notes", "alter policy p on notes using (true)"),
    "another policy": ("notes", "create policy q on notes for select using (true)"),
    "function": (
        "notes",
        "create or replace function may_see(shown bool) returns bool stable return true",
    ),
    "policy of a granted role": ("notes", "grant {role} to authenticated with inherit true"),
    "column of a judged table": ("notes", "grant select (hidden) on notes to authenticated"),
    "column": ("notices", "grant select (hidden) on notices to authenticated"),
    "table": ("notices", "grant select on notices to authenticated"),
    "column of a granted role": ("notices", "grant {role} to authenticated with inherit true"),
}


@contextlib.contextmanager
def role_of_its_own(server):
    """A role that may see everything; nobody is a member of it."""
    role = "reader_of_" + server.database_url.rsplit("/", 1)[1]
    server.sql(f"create role {role}", f"grant select on notices, notes to {role}")
    server.sql(f"create policy r on notes for select to {role} using (true)")
    try:
        yield role
    finally:
        server.sql(
            "drop policy r on notes",
            f"revoke all on notices, notes from {role}",
            f"drop role {role}",
        )


async def written_until_seen(sql, client, name, body):
    """Write rows that only the new rights show, until one of them arrives."""
    insert = f"insert into {name} values (%s, false, %s, 'NEWER')"
    await write_until(
        client,
        lambda: "NEWER" in json.dumps(client.changes(name)),
        lambda number: sql.execute(insert, (number, body)),
    )


@pytest.mark.security
async def test_rights_granted_after_a_commit_reveal_nothing_of_it(any_server):
    for change in CHANGES:
        await grant_after_commit(any_server, change)


async def grant_after_commit(server, change):
    server.sql(SCHEMA)
    name, statement = CHANGES[change]
    hides_column = name == "notices" or "column" in change
    private = f"insert into {name} values (2, {hides_column}, %s, %s)"
    with role_of_its_own(server) as role:
        async with (
            connected(server) as bob,
            await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
        ):
            await bob.join(name, server.token(BOB), table(name))
            await sql.execute(f"insert into {name} values (1, true, 'first', 'OLDER')")
            await bob.until(lambda: bob.changes(name))
            with stopped(server):
                await sql.execute(private, ("x" if hides_column else "OLDER", "OLDER"))
                await sql.execute(statement.format(role=role))
            if hides_column and name == "notes":
                await sql.execute("alter policy p on notes using (true)")
            await written_until_seen(sql, bob, name, "x" if hides_column else "NEWER")
            assert "OLDER" not in json.dumps(bob.frames), change
            # What could be shown of it was shown, or the channel knows that something is missing.
            assert any(
                said["message"] == "resync: rights_changed" for said in bob.systems(name)
            ) or any(told["record"]["id"] == 2 for told in bob.changes(name)), change


# Rights that change in the transaction that writes the row, and what the row must not show.
TOGETHER = {
    "policy opens": ("notes", "alter policy p on notes using (true)", False, None),
    "policy closes": ("notes", "alter policy p on notes using (false)", True, "FORBIDDEN"),
    "function closes": (
        "notes",
        "create or replace function may_see(shown bool) returns bool stable return false",
        True,
        "FORBIDDEN",
    ),
    "column opens": ("notices", "grant select (hidden) on notices to authenticated", True, None),
    "column closes": (
        "notices",
        "revoke select (body) on notices from authenticated",
        True,
        "FORBIDDEN",
    ),
}


async def test_rights_count_for_the_rows_of_their_own_transaction_in_either_order(any_server):
    for change in TOGETHER:
        for rights_first in (True, False):
            await change_together(any_server, change, rights_first=rights_first)


async def change_together(server, change, *, rights_first):
    name, rights, shown, forbidden = TOGETHER[change]
    steps = [rights, f"insert into {name} values (2, {shown}, 'FORBIDDEN', 'OPENED')"]
    server.sql(SCHEMA, "create table marks (id int primary key, shown bool)")
    server.sql(
        "alter table marks enable row level security",
        "create policy p on marks for select to authenticated using (true)",
        "alter publication supabase_realtime add table marks",
    )
    async with (
        connected(server) as bob,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await bob.join(name, server.token(BOB), table(name), table("marks"))
        await sql.execute(f"insert into {name} values (1, true, 'first', 'x')")
        await bob.until(lambda: bob.changes(name))
        async with sql.transaction():
            for statement in steps if rights_first else reversed(steps):
                await sql.execute(statement)
        await marked(sql, bob, name)
        told = [c["record"] for c in bob.changes(name) if c["table"] == name][1:]
        assert forbidden is None or forbidden not in json.dumps(told), change
        if told:
            assert [record["id"] for record in told] == [2], change
            assert ("OPENED" in json.dumps(told)) is (change == "column opens"), change
        elif "closes" not in change or name == "notices":
            assert any(said["message"] == "resync: rights_changed" for said in bob.systems(name)), (
                change
            )


async def marked(sql, client, topic):
    """Write rows that anybody may see until one of them arrives."""
    await write_until(
        client,
        lambda: any(change["table"] == "marks" for change in client.changes(topic)),
        lambda number: sql.execute("insert into marks values (%s)", (number,)),
    )
