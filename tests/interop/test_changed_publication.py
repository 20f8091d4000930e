"""Who follows a table is told when the publication sends another part of it.

On a database with event triggers, and as a plain owner without them (`visibility.md` §1).
"""

import pytest

from fixtures.raw_client import subscribed

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

EVERYTHING = "insert, update, delete, truncate"

NARROWED = {
    "row filter": "alter publication supabase_realtime set table w where (id > 5)",
    "column list": "alter publication supabase_realtime set table w (id, a)",
    "operations": "alter publication supabase_realtime set (publish = 'insert')",
}


async def test_a_publication_that_sends_less_of_a_table_is_told(any_server):
    server = any_server
    for what, statement in NARROWED.items():
        server.sql(
            "drop table if exists w",
            "create table w (id int primary key, a int, b int)",
            f"alter publication supabase_realtime set (publish = '{EVERYTHING}')",
            "alter publication supabase_realtime add table w",
        )
        async with subscribed(server, "w") as (client, sql):
            await sql.execute("insert into w values (1, 1, 1)")
            await client.until(lambda c=client: c.changes("w"))
            await sql.execute(statement)
            await client.until(lambda c=client: c.errors("w"))
            assert client.errors("w") == ["resync: publication_changed"], what
            await sql.execute("insert into w values (6, 6, 6)")
            await client.until(lambda c=client: len(c.changes("w")) == 2)
            assert client.changes("w")[1]["record"]["id"] == 6


async def test_a_table_that_leaves_the_publication_is_told(any_server):
    server = any_server
    server.sql(
        "create table w (id int primary key)", "alter publication supabase_realtime add table w"
    )
    async with subscribed(server, "w") as (client, sql):
        await sql.execute("alter publication supabase_realtime drop table w")
        await client.until(lambda: client.errors("w"))
        assert client.errors("w") == ["resync: publication_changed"]


BRIEFLY = {
    "v": ("drop table v", "add table v"),
    "w": ("set table v, w where (id > 5)", "set table v, w"),
}


async def test_what_was_not_published_for_a_moment_only_is_told(any_server):
    """However short it was: the publication leaves a trace in the catalog."""
    server = any_server
    for name in BRIEFLY:
        server.sql(
            f"create table {name} (id int primary key)",
            f"alter publication supabase_realtime add table {name}",
        )
    async with subscribed(server, *BRIEFLY) as (client, sql):
        for name, changes in BRIEFLY.items():
            await sql.execute(f"insert into {name} values (1)")
            await client.until(lambda name=name: client.changes(name))
            for number, change in enumerate(changes, 2):
                await sql.execute(f"alter publication supabase_realtime {change}")
                await sql.execute(f"insert into {name} values ({number})")
        for name in BRIEFLY:
            await client.until(lambda name=name: client.errors(name))
            assert client.errors(name) == ["resync: publication_changed"]
        told = len(client.errors("v"))
        await sql.execute("alter publication supabase_realtime set (publish = 'update')")
        await sql.execute(f"alter publication supabase_realtime set (publish = '{EVERYTHING}')")
        for name in BRIEFLY:
            await client.until(lambda name=name: len(client.errors(name)) > told)
            assert set(client.errors(name)) == {"resync: publication_changed"}
