"""`select` lists on a running server, and a role whose name must be quoted, from a claim."""

import json

import psycopg
import pytest

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.raw_client import ALICE, BOB, connected, table
from fixtures.server import run_server

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

SCHEMA = """
drop table if exists notes;
create table notes (id int primary key, owner uuid, body text, price int, salary int);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
create policy cheap on notes for select to "branch-staff" using (price < 10);
alter table notes replica identity full;
revoke all on notes from anon, authenticated;
grant select (id, owner, body, price) on notes to authenticated;
grant select (id, body, price) on notes to "branch-staff";
alter publication supabase_realtime add table notes;
"""


@pytest.fixture(scope="module")
def staffed(tmp_path_factory):
    """A server whose tokens may name the role "branch-staff", in a claim of its own."""
    # Roles belong to the cluster: other servers refuse a judging login that is member of more.
    with run_test_cluster(binaries_of(18)) as cluster:
        with psycopg.connect(cluster.url(), autocommit=True) as sql:
            sql.execute('create role "branch-staff" nologin')
        settings = {
            "HELIOGRAPH_ROLES": "anon,authenticated,service_role,branch-staff",
            "HELIOGRAPH_ROLE_CLAIM": "app_metadata.database_role",
        }
        url, folder = cluster.create_database(), tmp_path_factory.mktemp("staffed")
        with run_server(url, folder, **settings) as server:
            yield server


@pytest.fixture
def server(staffed):
    """The same, with an empty table of notes."""
    staffed.sql(SCHEMA)
    return staffed


def token_of(server, subject, role="authenticated"):
    return server.token(subject, app_metadata={"database_role": role})


def told(client, topic):
    """Return what kind of change, its columns, and what there is of the row, for each change."""
    return [
        (
            change["type"],
            [column["name"] for column in change["columns"]],
            change.get("record"),
            change.get("old_record"),
        )
        for change in client.changes(topic)
    ]


async def test_each_user_is_told_the_selected_columns_of_its_own_rows(server):
    async with connected(server) as client:
        for topic, subject, wanted in (("a", ALICE, ["body"]), ("b", BOB, ["price", "id"])):
            entry = table("notes", select=wanted)
            said = await client.join(topic, token_of(server, subject), entry)
            assert said["message"] == "Subscribed to PostgreSQL"
        server.sql(
            f"insert into notes values (1, '{ALICE}', 'a', 3, 7), (2, '{BOB}', 'b', 4, 8)",
            "update notes set body = body || '!', price = price * 2",
            "delete from notes",
        )
        await client.until(lambda: all(len(client.changes(topic)) == 3 for topic in "ab"))
        assert told(client, "a") == [
            ("INSERT", ["id", "body"], {"id": 1, "body": "a"}, None),
            ("UPDATE", ["id", "body"], {"id": 1, "body": "a!"}, {"id": 1, "body": "a"}),
            ("DELETE", ["id", "body"], None, {"id": 1, "body": "a!"}),
        ]
        assert told(client, "b") == [
            ("INSERT", ["id", "price"], {"id": 2, "price": 4}, None),
            ("UPDATE", ["id", "price"], {"id": 2, "price": 8}, {"id": 2, "price": 4}),
            ("DELETE", ["id", "price"], None, {"id": 2, "price": 8}),
        ]


@pytest.mark.security
async def test_a_selected_column_without_privilege_looks_like_one_that_does_not_exist(server):
    async with connected(server) as client:
        refusals = []
        for topic, name in (("s", "salary"), ("x", "absent")):
            entry = table("notes", select=["body", name])
            said = await client.join(topic, token_of(server, ALICE), entry)
            assert said["status"] == "error"
            refusals.append(said["message"].replace(name, "NAME"))
        assert refusals[0] == refusals[1]
        await client.join("ok", token_of(server, ALICE), table("notes"))
        server.sql(f"insert into notes values (1, '{ALICE}', 'a', 3, 7)")
        await client.until(lambda: client.changes("ok"))
        assert "salary" not in client.changes("ok")[0]["record"]
        assert client.changes("s") == client.changes("x") == []


async def test_subscribers_share_selected_columns_and_a_revoked_one_leaves_all_of_them(server):
    async with connected(server) as client, connected(server) as other:
        for each, topic, wanted in (
            (client, "both", ["body", "price"]),
            (client, "one", ["body"]),
            (other, "both", ["price", "body"]),
        ):
            await each.join(topic, token_of(server, ALICE), table("notes", select=wanted))
        channels = ((client, "both"), (client, "one"), (other, "both"))
        server.sql(f"insert into notes values (1, '{ALICE}', 'a', 3, 7)")
        for each, topic in channels:
            await each.until(lambda each=each, topic=topic: each.changes(topic))
        server.sql(
            "revoke select (price) on notes from authenticated",
            f"insert into notes values (2, '{ALICE}', 'b', 4, 8)",
        )
        for each, topic in channels:
            await each.until(lambda each=each, topic=topic: len(each.changes(topic)) == 2)
        shared = [{"id": 1, "body": "a", "price": 3}, {"id": 2, "body": "b"}]
        assert [change["record"] for change in client.changes("both")] == shared
        assert [change["record"] for change in other.changes("both")] == shared
        assert [change["record"] for change in client.changes("one")] == [
            {"id": 1, "body": "a"},
            {"id": 2, "body": "b"},
        ]


async def test_a_role_with_a_hyphen_is_judged_by_its_own_policies_and_privileges(server):
    async with connected(server) as client:
        staff = token_of(server, BOB, role="branch-staff")
        said = await client.join("staff", staff, table("notes"))
        assert said["message"] == "Subscribed to PostgreSQL"
        await client.join("some", staff, table("notes", select=["body"], filter="body=like.%e%"))
        refused = await client.join("owner", staff, table("notes", select=["owner"]))
        assert refused["status"] == "error"
        server.sql(
            f"insert into notes values (1, '{BOB}', 'dear', 30, 7)",
            f"insert into notes values (2, '{ALICE}', 'cheap', 3, 7), (3, null, 'last', 4, 8)",
        )
        await client.until(lambda: len(client.changes("staff")) == 2 and client.changes("some"))
        assert [change["record"] for change in client.changes("staff")] == [
            {"id": 2, "body": "cheap", "price": 3},
            {"id": 3, "body": "last", "price": 4},
        ]
        assert [change["record"] for change in client.changes("some")] == [
            {"id": 2, "body": "cheap"}
        ]
        assert "dear" not in json.dumps(client.frames)


async def test_a_role_that_is_not_on_the_list_opens_nothing(server):
    async with connected(server) as client:
        frame = {"access_token": token_of(server, ALICE, role="postgres")}
        await client.socket.send(json.dumps(["1", "1", "realtime:r", "phx_join", frame]))
        await client.until(lambda: client.frames)
        assert client.frames[0][4]["status"] == "error"
