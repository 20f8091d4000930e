"""COMMIT waits for a synchronous standby: what it wrote has been read before anybody can see it.

Who is told ``resync`` by then would load what was before.
"""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.raw_client import ALICE, table
from fixtures.resuming import following
from fixtures.server import run_server

pytestmark = [pytest.mark.postgres, pytest.mark.fault, pytest.mark.asyncio]

TABLES = (
    "create table members (owner uuid primary key)",
    f"insert into members values ('{ALICE}')",
    "create table notes (id int primary key, owner uuid)",
    "alter table notes enable row level security",
    (
        "create policy own on notes for select to authenticated"
        " using (exists (select from members m where m.owner = notes.owner))"
    ),
    "grant select on members, notes to authenticated",
    "create table w (id int primary key)",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes, w",
    f"insert into notes values (1, '{ALICE}')",
)
SHOWN = "select count(*) from notes n where exists (select from members m where m.owner = n.owner)"

#: Only who asks for it waits for the standby, which there is not.
SETTINGS = {"synchronous_standby_names": "nobody", "synchronous_commit": "local"}


@pytest.fixture(scope="module")
def cluster():
    with run_test_cluster(binaries_of(18), SETTINGS) as waiting:
        yield waiting


@contextlib.asynccontextmanager
async def commit_that_waits(sql, *statements):
    """Have a transaction wait within its COMMIT until the block ends; then it is committed."""
    url = sql.info.dsn + f" password={sql.info.password}"
    async with await psycopg.AsyncConnection.connect(url) as writer:
        await writer.execute("set synchronous_commit = 'on'")
        for statement in statements:
            await writer.execute(statement)
        committing = asyncio.create_task(writer.commit())
        try:
            yield
        finally:
            await sql.execute("select pg_cancel_backend(%s)", (writer.info.backend_pid,))
            await committing


async def shown(sql):
    ((count,),) = await (await sql.execute(SHOWN)).fetchall()
    return count


@pytest.mark.security
async def test_a_change_of_rights_is_told_when_a_load_shows_what_it_changed(cluster, tmp_path):
    with run_server(cluster.create_database(), tmp_path) as server:
        server.sql(*TABLES)
        connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
        async with following(server) as client, await connecting as sql:
            await client.follow("notes", server.token(ALICE))
            await client.follow("w", server.service_role_key)
            taken = (f"delete from members where owner = '{ALICE}'", "insert into w values (1)")
            async with commit_that_waits(sql, *taken):
                # It has been read, and nobody sees it.
                await client.until(lambda: client.ids("w") == [1])
                assert await shown(sql) == 1
                marks = client.marks("notes")
                await sql.execute("insert into w values (2)")
                await client.until(lambda: 2 in client.ids("w"))
                told = len(client.marks("w"))
                await client.until(lambda: len(client.marks("w")) > told)
                assert (client.resyncs("notes"), client.marks("notes")) == ([], marks)
            await client.until(lambda: client.resyncs("notes") == ["rights_changed"])
            assert await shown(sql) == 0


async def test_who_begins_while_a_change_of_rights_can_not_be_seen_is_told_of_it(cluster, tmp_path):
    with run_server(cluster.create_database(), tmp_path) as server:
        server.sql(*TABLES)
        connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
        async with following(server) as client, await connecting as sql:
            # Who was there first has what policies read followed.
            await client.follow("notes", server.token(ALICE))
            await client.follow("w", server.service_role_key)
            taken = (f"delete from members where owner = '{ALICE}'", "insert into w values (1)")
            async with following(server) as late:
                async with commit_that_waits(sql, *taken):
                    await client.until(lambda: client.ids("w") == [1])
                    asked = table("notes", positions=True)
                    await late.join("notes", server.token(ALICE), asked)
                    assert await shown(sql) == 1
                    assert late.marks("notes") == []
                await late.until(lambda: late.resyncs("notes") == ["rights_changed"])
                assert await shown(sql) == 0
