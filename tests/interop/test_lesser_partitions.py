"""Partitions that send less of their old rows than their table promises: no leak, no silent gap.

A partition has its own replica identity, DEFAULT unless somebody changes it, and the stream tells
its rows in the form of the table (`visibility.md` §3).
"""

import pytest

from fixtures.raw_client import ALICE, BOB, connected, subscribed, table

pytestmark = [
    pytest.mark.interop,
    pytest.mark.postgres,
    pytest.mark.security,
    pytest.mark.asyncio,
]

#: A table with FULL identity, of whose partitions the second one has it too and the first has not.
PARTITIONED = """
create table pt (id int primary key, owner uuid, body text) partition by range (id);
alter table pt replica identity full;
create table pt1 partition of pt for values from (0) to (10);
create table pt2 partition of pt for values from (10) to (20);
alter table pt2 replica identity full;
alter table pt enable row level security;
create policy own on pt for select to authenticated using (owner = (select auth.uid()));
grant select on pt to authenticated;
alter publication supabase_realtime set (publish_via_partition_root = true);
alter publication supabase_realtime add table pt;
"""


def events(client, topic):
    """Kind, new row's key and what was told of the old one."""
    return [
        (change["type"], (change.get("record") or {}).get("id"), change.get("old_record"))
        for change in client.changes(topic)
    ]


async def test_a_deleted_row_of_which_only_the_key_came_is_told_to_nobody_it_was_hidden_from(
    any_server,
):
    server = any_server
    server.sql(PARTITIONED)
    async with connected(server) as alice:
        await alice.join("own", server.token(ALICE), table("pt"))
        for key, owner in ((1, ALICE), (2, BOB), (11, ALICE), (12, BOB)):
            server.sql(f"insert into pt values ({key}, '{owner}', 'a')")
        server.sql("update pt set body = 'b' where id in (1, 11)", "delete from pt where id = 12")
        await alice.until(lambda: len(alice.changes("own")) == 4)
        assert alice.errors("own") == []
        server.sql("delete from pt where id = 2")
        await alice.until(lambda: alice.errors("own"))
        assert alice.errors("own") == ["resync: undecidable"]
        server.sql(f"insert into pt values (13, '{ALICE}', 'last')")
        await alice.until(lambda: len(alice.changes("own")) == 5)
    assert events(alice, "own") == [
        ("INSERT", 1, None),
        ("INSERT", 11, None),
        ("UPDATE", 1, {"id": 1}),
        ("UPDATE", 11, {"id": 11, "owner": ALICE, "body": "a"}),
        ("INSERT", 13, None),
    ]


async def test_who_sees_everything_is_told_the_key_that_came(server):
    server.sql(PARTITIONED)
    async with subscribed(server, "pt") as (service, sql):
        await sql.execute("insert into pt values (1, %s, 'a'), (11, %s, 'a')", (ALICE, ALICE))
        await sql.execute("delete from pt where id = 1")
        await sql.execute("delete from pt where id = 11")
        await service.until(lambda: len(service.changes("pt")) == 4)
    assert service.errors("pt") == []
    assert events(service, "pt")[2:] == [
        ("DELETE", None, {"id": 1}),
        ("DELETE", None, {"id": 11, "owner": ALICE, "body": "a"}),
    ]


async def test_a_partition_made_later_counts_from_its_first_row_on(any_server):
    server = any_server
    server.sql(PARTITIONED)
    async with connected(server) as alice:
        await alice.join("own", server.token(ALICE), table("pt"))
        await alice.join("filtered", server.token(BOB), table("pt", filter="body=eq.x"))
        server.sql(
            f"insert into pt values (11, '{ALICE}', 'a')",
            "create table pt3 partition of pt for values from (20) to (30)",
            f"insert into pt values (21, '{BOB}', 'z'), (22, '{ALICE}', 'x')",
            "delete from pt where id = 21",
        )

        def undecided(topic):
            return alice.errors(topic).count("resync: undecidable")

        # Whether the row passed the filter is not known either.
        await alice.until(lambda: undecided("own") and undecided("filtered"))
        server.sql(
            "alter table pt3 replica identity full",
            "update pt set body = 'y' where id = 22",
            "delete from pt where id = 22",
        )
        await alice.until(lambda: len(alice.changes("own")) == 4)
        assert (undecided("own"), undecided("filtered")) == (1, 1)
    assert events(alice, "own")[2:] == [
        ("UPDATE", 22, {"id": 22, "owner": ALICE, "body": "x"}),
        ("DELETE", None, {"id": 22, "owner": ALICE, "body": "y"}),
    ]
    assert alice.changes("filtered") == []


async def test_partitions_that_send_several_keys_are_told_as_disagreeing(server):
    server.sql(
        PARTITIONED,
        "create unique index on pt1 (id, owner)",
        "alter table pt1 alter owner set not null",
        "alter table pt1 replica identity using index pt1_id_owner_idx",
        "alter table pt2 replica identity default",
    )
    async with subscribed(server, "pt") as (client, sql):
        await sql.execute("insert into pt values (1, %s, 'a'), (11, %s, 'a')", (ALICE, ALICE))
        await client.until(lambda: client.errors("pt"))
        assert client.errors("pt") == ["resync: relation_disagrees"]
        await sql.execute("delete from pt")
        await client.until(lambda: len(client.errors("pt")) == 2)
        assert client.changes("pt") == []
