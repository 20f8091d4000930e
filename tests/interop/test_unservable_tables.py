"""Tables of the publication that can not be served: who may read them learns what is wrong."""

import pytest

from fixtures.raw_client import ALICE, connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

REASON = "the table can not be streamed: "
ABSENT = "its policies read columns that the WAL does not carry"


def protected(name, policy):
    """Statements that put a table under a policy and publish it."""
    return (
        f"alter table {name} enable row level security",
        f"create policy own on {name} for select using ({policy})",
        f"grant select on {name} to authenticated",
        f"alter publication supabase_realtime add table {name}",
    )


@pytest.mark.parametrize("policy", ["tableoid > 0", "xmin::text <> ''", "ctid is not null"])
async def test_policies_that_read_system_columns_are_refused_with_the_reason(any_server, policy):
    server = any_server
    server.sql("create table w (id int primary key)", *protected("w", policy))
    async with connected(server) as client:
        told = await client.join("w", server.token(ALICE), table("w"))
        assert told["status"] == "error"
        assert REASON + ABSENT in told["message"]
    (logged,) = [line for line in server.log() if line["event"] == "table_withheld"]
    assert (logged["role"], logged["reason"]) == ("authenticated", ABSENT)


async def test_policies_that_read_an_unpublished_column_are_refused_with_the_reason(server):
    server.sql(
        "create table w (id int primary key, hidden int)",
        *protected("w", "hidden > 0")[:-1],
        "alter publication supabase_realtime add table w (id)",
    )
    async with connected(server) as client:
        told = await client.join("w", server.token(ALICE), table("w"))
        assert REASON + ABSENT in told["message"]


async def test_a_wildcard_goes_without_tables_whose_policies_can_not_be_judged(server):
    server.sql(
        "create table bad (id int primary key)",
        *protected("bad", "tableoid > 0"),
        "create table failing (id int primary key)",
        *protected("failing", "1 / 0 > 0"),
    )
    async with connected(server) as client:
        told = await client.join("none", server.token(ALICE), table("*"))
        assert told["status"] == "error"
        server.sql("create table good (id int primary key)", *protected("good", "id < 10"))
        told = await client.join("all", server.token(ALICE), table("*"))
        assert told["status"] == "ok"
        server.sql(
            "insert into bad values (1)",
            "insert into failing values (1)",
            "insert into good values (1)",
        )
        await client.until(lambda: client.changes("all"))
        assert [change["table"] for change in client.changes("all")] == ["good"]
        assert client.errors("all") == []


async def test_a_table_from_which_others_inherit_is_refused_with_the_reason(any_server):
    server = any_server
    server.sql(
        "create table w (id int primary key)",
        "create table child () inherits (w)",
        *protected("w", "true"),
    )
    async with connected(server) as client:
        told = await client.join("w", server.token(ALICE), table("w"))
        assert REASON + "other tables inherit from it" in told["message"]


async def test_a_table_that_gets_a_child_is_told_and_withheld_until_it_is_gone(any_server):
    server = any_server
    server.sql("create table w (id int primary key)", *protected("w", "true"))
    async with connected(server) as client:
        await client.join("w", server.token(ALICE), table("w"))
        server.sql("create table child () inherits (w)")
        await client.until(lambda: client.errors("w"))
        assert client.errors("w") == ["resync: rights_changed"]
        server.sql("insert into w values (1)", "drop table child")
        await client.until(lambda: len(client.errors("w")) == 2)
        server.sql("insert into w values (2)")
        await client.until(lambda: client.changes("w"))
        assert [change["record"]["id"] for change in client.changes("w")] == [2]


async def test_an_identity_by_an_index_without_the_primary_key_is_refused(server):
    server.sql(
        "create table w (id int primary key, k int not null unique)",
        "alter table w replica identity using index w_k_key",
        "alter publication supabase_realtime add table w",
    )
    async with connected(server) as client:
        told = await client.join("w", server.service_role_key, table("w"))
        assert REASON + "its replica identity leaves out the primary key" in told["message"]


async def test_an_identity_index_that_loses_the_primary_key_is_told(any_server):
    server = any_server
    server.sql(
        "create table w (id int primary key, k int not null unique)",
        "create unique index w_both on w (k, id)",
        "alter table w replica identity using index w_both",
        *protected("w", "true"),
    )
    async with connected(server) as client:
        await client.join("w", server.token(ALICE), table("w"))
        server.sql("insert into w values (1, 1), (2, 2)", "delete from w where id = 1")
        await client.until(lambda: len(client.changes("w")) == 3)
        assert client.changes("w")[2]["old_record"] == {"id": 1}
        server.sql(
            "alter table w replica identity using index w_k_key", "delete from w where id = 2"
        )
        await client.until(lambda: client.errors("w"))
        assert len(client.changes("w")) == 3
