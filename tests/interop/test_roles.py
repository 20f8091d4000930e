"""Subscribers of several roles to one table: each is told what its own role may read.

The situations of walrus' `test_subscribers_multiple_roles`, `test_error_unauthorized` and
`test_apply_rls_role_leak`, where the filters of many subscribers were compared with the rights of
one of them.
"""

import contextlib

import psycopg
import pytest

from fixtures.raw_client import ALICE, BOB, connected, table, write_until

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

SCHEMA = """
create table notes (id int primary key, owner uuid, kind text, body text);
create table marks (id int primary key);
alter table notes enable row level security;
alter table marks enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
create policy open on notes for select to anon using (kind = 'open');
create policy p on marks for select using (true);
alter table notes replica identity full;
revoke all on notes from anon, authenticated;
grant select (id, owner, kind) on notes to anon;
grant select (id, owner, body) on notes to authenticated;
alter publication supabase_realtime add table notes, marks;
"""

#: Columns that each role may read.
READABLE = {
    "anon": ("id", "owner", "kind"),
    "authenticated": ("id", "owner", "body"),
    "service_role": ("id", "owner", "kind", "body"),
}


def row(number):
    return {
        "id": number,
        "owner": (ALICE, BOB, None)[number % 3],
        "kind": ("open", "closed")[number % 2],
        "body": ("pear", "quince", "plum", "fig")[number % 4],
    }


def shown(role, subject, number):
    """Return what a role sees of a row, or None."""
    whole = row(number)
    is_seen = {
        "anon": whole["kind"] == "open",
        "authenticated": whole["owner"] == subject,
        "service_role": True,
    }[role]
    return {name: whole[name] for name in READABLE[role]} if is_seen else None


SPEAKERS = (
    ("authenticated", ALICE),
    ("anon", None),
    ("authenticated", BOB),
    ("service_role", None),
)

#: Compared by us and by PostgreSQL; `kind` and `body` are not readable to everybody.
FILTERS = {
    None: lambda _row: True,
    "id=gt.6": lambda row: row["id"] > 6,
    "owner=not.is.null": lambda row: row["owner"] is not None,
    "owner=eq." + BOB: lambda row: row["owner"] == BOB,
    "body=match.^p": lambda row: row["body"].startswith("p"),
    "kind=ilike.OP%": lambda row: row["kind"] == "open",
}


def is_readable(row_filter, role):
    return row_filter is None or row_filter.split("=")[0] in READABLE[role]


def token_of(server, role, subject):
    return {
        "anon": server.anon_key,
        "service_role": server.service_role_key,
    }.get(role) or server.token(subject)


@pytest.mark.parametrize("is_one_socket", [True, False])
async def test_many_subscribers_of_alternating_roles_and_filters_are_each_judged_as_themselves(
    server, is_one_socket
):
    server.sql(SCHEMA)
    asked = [
        (row_filter, role, subject)
        for row_filter in FILTERS
        for role, subject in SPEAKERS
        if is_readable(row_filter, role)
    ]
    assert len(asked) > 20
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(connected(server))
        clients = [
            one if is_one_socket else await stack.enter_async_context(connected(server))
            for _ in asked
        ]
        for number, (row_filter, role, subject) in enumerate(asked):
            more = {"filter": row_filter} if row_filter else {}
            token = token_of(server, role, subject)
            said = await clients[number].join(
                str(number), token, table("notes", **more), table("marks")
            )
            assert said["message"] == "Subscribed to PostgreSQL", (said, asked[number])
        for number in range(1, 25):
            values = ", ".join("null" if v is None else f"'{v}'" for v in row(number).values())
            server.sql(f"insert into notes values ({values})")
        server.sql("insert into marks values (1)")
        for number, (row_filter, role, subject) in enumerate(asked):
            client, topic = clients[number], str(number)
            await client.until(
                lambda c=client, t=topic: any(x["table"] == "marks" for x in c.changes(t))
            )
            told = [c["record"] for c in client.changes(topic) if c["table"] == "notes"]
            seen = [n for n in range(1, 25) if FILTERS[row_filter](row(n))]
            expected = [shown(role, subject, n) for n in seen]
            assert told == [record for record in expected if record], asked[number]
            assert client.errors(topic) == []


async def test_each_role_is_told_its_own_columns_of_one_change(server):
    server.sql(SCHEMA)
    speakers = {"authenticated": ALICE, "anon": None, "service_role": None}
    async with connected(server) as client:
        for role, subject in speakers.items():
            await client.join(role, token_of(server, role, subject), table("notes"))
        server.sql(
            f"insert into notes values (1, '{ALICE}', 'open', 'pear')",
            "update notes set body = 'plum'",
        )
        await client.until(lambda: all(len(client.changes(role)) == 2 for role in speakers))
        before = {"id": 1, "owner": ALICE, "kind": "open", "body": "pear"}
        after = {**before, "body": "plum"}
        for role in speakers:
            names = READABLE[role]
            inserted, updated = client.changes(role)
            assert inserted["record"] == {name: before[name] for name in names}
            assert updated["record"] == {name: after[name] for name in names}
            assert updated["old_record"] == {name: before[name] for name in names}
            assert [column["name"] for column in updated["columns"]] == list(names)


async def test_a_filter_on_a_column_that_only_another_role_may_read_is_refused(server):
    server.sql(SCHEMA)
    async with connected(server) as client:
        for role, name in (("anon", "body"), ("authenticated", "kind")):
            token = token_of(server, role, ALICE)
            refused = await client.join(role, token, table("notes", filter=f"{name}=eq.x"))
            missing = await client.join(f"{role}2", token, table("notes", filter="none=eq.x"))
            assert refused["status"] == "error"
            assert refused["message"].replace(name, "none") == missing["message"]


@pytest.mark.parametrize(
    "grants",
    [
        "select 1",
        "grant select (owner, body) on notes to authenticated",
    ],
)
async def test_who_may_not_read_the_key_is_refused_and_the_others_are_served(server, grants):
    server.sql(SCHEMA, "revoke select (id, owner, body) on notes from authenticated", grants)
    async with connected(server) as client:
        refused = await client.join("alice", server.token(ALICE), table("notes"))
        await client.join("anon", server.anon_key, table("notes"))
        assert refused["status"] == "error"
        server.sql(f"insert into notes values (1, '{ALICE}', 'open', 'pear')")
        await client.until(lambda: client.changes("anon"))
        assert client.changes("alice") == []


async def test_who_may_not_read_the_key_any_more_learns_of_no_row(any_server):
    server = any_server
    server.sql(SCHEMA)
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await client.join("alice", server.token(ALICE), table("notes"), table("marks"))
        await client.join("anon", server.anon_key, table("notes"))

        async def write(number):
            await sql.execute(
                "insert into notes values (%s, %s, 'open', 'SECRET')", (number, ALICE)
            )
            await sql.execute("insert into marks values (%s)", (number,))

        await write(1)
        await client.until(lambda: len(client.changes("alice")) == 2)
        await sql.execute("revoke select (id) on notes from authenticated")
        # Its marks go on, and so do the notes of others.
        await write_until(
            client,
            lambda: client.changes("alice")[-1]["record"]["id"] > 1 and client.changes("anon")[1:],
            write,
        )
        notes = [c for c in client.changes("alice") if c["table"] == "notes"]
        assert [change["record"]["id"] for change in notes] == [1]
        assert set(client.errors("alice")) <= {"resync: rights_changed"}
