"""A database of a plain owner: `service_role` has no BYPASSRLS and is judged like others."""

import json

import psycopg
import pytest

from fixtures.raw_client import BOB, connected, table, write_until

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


SCHEMA = """
create table notes (id int primary key, owner uuid, body text);
create table plain (id int primary key);
create table closed (id int primary key);
alter table notes enable row level security;
alter table closed enable row level security;
create policy own on notes for select to authenticated using (owner = auth.uid());
create policy most on notes for select to service_role using (body <> 'not even the server');
alter table notes replica identity full;
alter publication supabase_realtime add table notes, plain, closed;
"""


async def test_service_role_is_judged_by_its_own_policies_over_its_own_login(plain_server):
    plain_server.sql(SCHEMA)
    async with (
        connected(plain_server) as client,
        await psycopg.AsyncConnection.connect(plain_server.database_url, autocommit=True) as sql,
    ):
        key = plain_server.service_role_key
        for topic, name in (("notes", "notes"), ("plain", "plain"), ("closed", "closed")):
            said = await client.join(topic, key, table(name))
            assert said["message"] == "Subscribed to PostgreSQL"
        await client.join("filtered", key, table("notes", filter="body=like.b%"))
        await client.join("bob", plain_server.token(BOB), table("notes"))
        refused = await client.join("bob-plain", plain_server.token(BOB), table("plain"))
        assert refused["status"] == "error"
        await sql.execute("insert into closed values (1)")
        await sql.execute("insert into plain values (1)")
        for number, (owner, body) in enumerate(
            [(BOB, "bob's"), (None, "no one's"), (BOB, "not even the server"), (None, "both")]
        ):
            await sql.execute("insert into notes values (%s, %s, %s)", (number, owner, body))
        await sql.execute("update notes set body = 'bob again' where id = 2")
        await client.until(lambda: len(client.changes("notes")) == 4)
        # Other audiences, other lanes: no order between them.
        await client.until(lambda: len(client.changes("bob")) == 3)
        await client.until(lambda: len(client.changes("filtered")) == 3)
        await client.until(lambda: client.changes("plain"))
        told = [(c["type"], c["record"]["id"]) for c in client.changes("notes")]
        assert told == [("INSERT", 0), ("INSERT", 1), ("INSERT", 3), ("UPDATE", 2)]
        assert "not even the server" not in json.dumps(client.changes("notes"))
        assert [c["record"]["id"] for c in client.changes("filtered")] == [0, 3, 2]
        assert [c["record"]["id"] for c in client.changes("bob")] == [0, 2, 2]
        assert [c["record"]["id"] for c in client.changes("plain")] == [1]
        # Its row came before all the others, and no policy shows it to anybody.
        assert client.changes("closed") == []


async def test_the_judging_logins_can_not_become_one_another_s_roles(plain_server, plain_cluster):
    name = plain_server.database_url.rsplit("/", 1)[1]
    for login, allowed, forbidden in (
        ("heliograph_judge", "authenticated", "service_role"),
        ("heliograph_service_judge", "service_role", "authenticated"),
    ):
        url = plain_cluster.url(name, login)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as judge:
            await judge.execute(f"set role {allowed}")
            await judge.execute("reset role")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await judge.execute(f"set role {forbidden}")


@pytest.mark.security
async def test_a_table_that_loses_its_row_security_is_withheld_from_who_had_subscribed(any_server):
    server = any_server
    server.sql(
        "create table open (id int primary key)",
        "alter table open enable row level security",
        "create policy p on open for select to authenticated using (true)",
        "alter publication supabase_realtime add table open",
    )
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await client.join("bob", server.token(BOB), table("open"))
        await client.join("server", server.service_role_key, table("open"))
        await sql.execute("insert into open values (1)")
        await client.until(lambda: client.changes("bob"))
        await sql.execute("alter table open disable row level security")
        await sql.execute("insert into open values (2)")
        await client.until(
            lambda: "resync: rights_changed" in [s["message"] for s in client.systems("bob")]
        )
        await write_until(
            client,
            lambda: any(c["record"]["id"] > 2 for c in client.changes("server")),
            lambda number: sql.execute("insert into open values (%s)", (number,)),
        )
        assert [change["record"]["id"] for change in client.changes("bob")] == [1]


async def test_a_composite_type_that_gains_an_attribute_is_shown_with_it(any_server):
    server = any_server
    server.sql(
        "create type pair as (a int, b int)",
        "create table pairs (id int primary key, v pair)",
        "alter table pairs enable row level security",
        "create policy p on pairs for select to authenticated using (true)",
        "alter publication supabase_realtime add table pairs",
    )
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await client.join("bob", server.token(BOB), table("pairs"))
        await sql.execute("insert into pairs values (1, '(1,2)')")
        await client.until(lambda: client.changes("bob"))
        await sql.execute("alter type pair add attribute c int")
        await write_until(
            client,
            lambda: len(client.changes("bob")) > 1,
            lambda number: sql.execute("insert into pairs values (%s, '(1,2,3)')", (number,)),
        )
        shown = [change["record"]["v"] for change in client.changes("bob")[:2]]
        assert shown == [{"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}]


@pytest.mark.security
@pytest.mark.parametrize(
    "statement",
    [
        "revoke select on apart.open from authenticated",
        "revoke usage on schema apart from authenticated",
    ],
)
async def test_who_may_not_select_any_more_learns_of_no_row(any_server, statement):
    server = any_server
    server.sql(
        "create schema apart",
        "grant usage on schema apart to authenticated",
        "create table apart.open (id int primary key)",
        "grant select on apart.open to authenticated",
    )
    for name in ("apart.open", "public.marks"):
        server.sql(
            f"create table if not exists {name} (id int primary key)",
            f"alter table {name} enable row level security",
            f"create policy p on {name} for select to authenticated using (true)",
            f"alter publication supabase_realtime add table {name}",
        )
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        both = {"event": "*", "schema": "apart", "table": "open"}, table("marks")
        await client.join("bob", server.token(BOB), *both)
        await sql.execute("insert into apart.open values (1)")
        await client.until(lambda: client.changes("bob"))
        await sql.execute(statement)

        async def write(number):
            await sql.execute("insert into apart.open values (%s)", (number,))
            await sql.execute("insert into marks values (%s)", (number,))

        await write_until(client, lambda: client.changes("bob")[-1]["table"] == "marks", write)
        assert [c["table"] for c in client.changes("bob")].count("open") == 1
