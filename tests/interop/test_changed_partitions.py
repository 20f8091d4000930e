"""Who follows a partitioned table is told when rows come or go with a partition of it.

On a database with event triggers, and as a plain owner without them (`visibility.md` §1).
"""

import json

import pytest

from fixtures.raw_client import stopped, subscribed, write_until

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

PARTITIONED = """
create table pt (id int primary key, body text) partition by range (id);
create table pt1 partition of pt for values from (0) to (10);
create table pt2 partition of pt for values from (10) to (20);
create table pt3 (id int primary key, body text);
insert into pt3 values (25, 'before it was attached');
insert into pt values (1, 'one'), (11, 'eleven');
alter publication supabase_realtime set (publish_via_partition_root = true);
alter publication supabase_realtime add table pt;
"""


async def test_rows_that_come_or_go_with_a_partition_are_told(any_server):
    server = any_server
    server.sql(PARTITIONED)
    async with subscribed(server, "pt") as (client, sql):
        for told, statement in enumerate(
            (
                "truncate pt1",
                "alter table pt attach partition pt3 for values from (20) to (30)",
                "alter table pt detach partition pt2",
                "alter table pt attach partition pt2 for values from (10) to (20)",
            ),
            1,
        ):
            await sql.execute(statement)
            await client.until(lambda n=told: len(client.errors("pt")) == n)
            assert set(client.errors("pt")) == {"resync: partitions_changed"}, statement
            await sql.execute("insert into pt values (%s, 'after')", (told,))
            await client.until(lambda n=told: len(client.changes("pt")) == n)


async def test_a_partition_detached_and_attached_between_two_looks_is_told(any_server):
    server = any_server
    server.sql(PARTITIONED)
    async with subscribed(server, "pt") as (client, sql):
        async with sql.transaction():
            await sql.execute("alter table pt detach partition pt2")
            await sql.execute("delete from pt2")
            await sql.execute("alter table pt attach partition pt2 for values from (10) to (20)")
        await client.until(lambda: client.errors("pt"))
        assert client.errors("pt") == ["resync: partitions_changed"]
        assert client.changes("pt") == []


async def test_a_new_empty_partition_disturbs_nobody(each_server):
    server = each_server
    server.sql(PARTITIONED)
    server.sql(
        "create table other (id int primary key) partition by range (id)",
        "create table other1 partition of other for values from (0) to (10)",
        "alter publication supabase_realtime add table other",
    )
    async with subscribed(server, "pt", "other") as (client, sql):
        await sql.execute("create table pt4 partition of pt for values from (30) to (40)")
        # All partitions are looked at together: whoever sees this has seen the empty one.
        await sql.execute("truncate other1")
        await client.until(lambda: client.errors("other"))
        await sql.execute("insert into pt values (31, 'in the new one')")
        await client.until(lambda: client.changes("pt"))
        assert client.errors("pt") == []
        await sql.execute("truncate pt4")
        await client.until(lambda: client.errors("pt"))
        assert client.errors("pt") == ["resync: partitions_changed"]


async def test_nothing_of_a_detached_partition_comes_after_it_was_told(any_server):
    server = any_server
    server.sql(PARTITIONED)
    async with subscribed(server, "pt") as (client, sql):
        with stopped(server):
            await sql.execute("insert into pt values (12, 'in the one that goes')")
            await sql.execute("alter table pt detach partition pt2")
        await client.until(lambda: client.errors("pt"))

        async def write(number):
            await sql.execute("insert into pt values (%s, 'stays')", (number % 10,))
            await sql.execute("delete from pt where id = %s", (number % 10,))

        def seen():
            return any(change["record"].get("body") == "stays" for change in client.changes("pt"))

        await write_until(client, seen, write)
        told = [frame[3:] for frame in client.frames if frame[2] == "realtime:pt"]
        first = next(
            place
            for place, (event, said) in enumerate(told)
            if said.get("status") == "error" and event == "system"
        )
        assert "in the one that goes" not in json.dumps(told[first:])
