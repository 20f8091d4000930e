"""What a subscriber was told adds up to what SELECT shows it (law 2 of visibility.md §8).

Seeded: policies, filters and transactions are drawn; each user's channels are read from a raw
socket.
After every round the rows that follow from the frames are compared with SELECT as that user.
"""

import contextlib
import json
import random

import psycopg
import pytest

from fixtures.raw_client import connected, table

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

USERS = [f"00000000-0000-0000-0000-00000000000{n}" for n in "123"]

COMMON = """
create table members (user_id uuid, org int, primary key (user_id, org));
create function is_member(u uuid, o int) returns bool language plpgsql stable security definer
  set search_path = '' as
  $$ begin return exists (select from public.members where user_id = u and org = o); end $$;
grant select on members to authenticated;
insert into members values ('{0}', 1), ('{0}', 2), ('{1}', 2), ('{2}', 3);
"""

POLICIES = {
    "own": ["using (owner = (select auth.uid()))"],
    "member": [
        "using (exists (select from members m where m.user_id = auth.uid() and m.org = member.org))"
    ],
    "helper": ["using (is_member((select auth.uid()), org))"],
    "public": ["using (note like 'p%' or owner = auth.uid())"],
    "restricted": ["using (true)", "as restrictive using (org <> 3 or owner = auth.uid())"],
}

FILTERS = [
    (None, "true"),
    ("org=eq.2", "org = 2"),
    ("org=in.(1,3)", "org in (1, 3)"),
    ("note=like.p%", "note like 'p%'"),
    ("rank=gt.50", "rank > 50"),
    ("note=not.is.null", "note is not null"),
]


def make_tables():
    statements = [COMMON.format(*USERS)]
    for name, policies in POLICIES.items():
        statements.append(
            f"create table {name} (id int primary key, org int, owner uuid, note text,"
            " rank numeric);"
            f"alter table {name} enable row level security;"
            f"alter table {name} replica identity full;"
            f"alter publication supabase_realtime add table {name};"
        )
        for number, policy in enumerate(policies):
            kind, _, expression = policy.rpartition("using ")
            statements.append(
                f"create policy p{number} on {name} {kind} for select to authenticated"
                f" using {expression}"
            )
    return statements


async def some_writes(rng, sql, name):
    """One transaction of random writes, several versions of a key and undone parts among them."""
    async with sql.transaction():
        for _ in range(rng.randint(1, 5)):
            key = rng.randint(1, 12)
            values = (
                rng.randint(1, 3),
                rng.choice([*USERS, None]),
                rng.choice(["plain", "pear", "quince", None]),
                rng.choice([rng.randint(0, 100), None]),
            )
            match rng.randint(0, 6):
                case 0 | 1 | 2:
                    await sql.execute(
                        f"insert into {name} values (%s, %s, %s, %s, %s) on conflict (id) do update"
                        " set org = excluded.org, owner = excluded.owner, note = excluded.note,"
                        " rank = excluded.rank",
                        (key, *values),
                    )
                case 3:
                    await sql.execute(
                        f"update {name} set org = %s, owner = %s where id %% 3 = %s",
                        (values[0], values[1], key % 3),
                    )
                case 4:
                    await sql.execute(f"delete from {name} where id = %s", (key,))
                case 5:
                    await sql.execute(
                        f"update {name} set id = %s where id = %s and not exists"
                        f" (select from {name} where id = %s)",
                        (key + 20, key, key + 20),
                    )
                case _:
                    async with sql.transaction(force_rollback=True):
                        await sql.execute(f"update {name} set owner = %s", (values[1],))


async def selected(database_url, user, name, condition):
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        claims = json.dumps({"sub": user, "role": "authenticated"})
        await connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        await connection.execute("set local role authenticated")
        cursor = await connection.execute(
            f"select to_jsonb(t) from {name} t where ({condition}) and id < 1000"
        )
        return {row[0]["id"]: row[0] for row in await cursor.fetchall()}


class View:
    """The rows that follow from one channel's frames."""

    def __init__(self, client, topic):
        self.client, self.topic = client, topic
        self.rows, self.read = {}, 0

    def apply(self):
        changes = self.client.changes(self.topic)
        for change in changes[self.read :]:
            if change.get("old_record") and change["type"] != "INSERT":
                self.rows.pop(change["old_record"]["id"], None)
            if change["type"] != "DELETE":
                self.rows[change["record"]["id"]] = change["record"]
        self.read = len(changes)
        return {key: row for key, row in self.rows.items() if key < 1_000}


@pytest.mark.security
@pytest.mark.parametrize("seed", range(4))
async def test_what_was_told_adds_up_to_what_select_shows(server, seed):
    await compare_with_select(server, server.database_url, seed)


async def test_the_same_holds_as_a_plain_owner_without_event_triggers(plain_server, plain_cluster):
    # The owner itself may not become the roles that it made.
    name = plain_server.database_url.rsplit("/", 1)[1]
    await compare_with_select(plain_server, plain_cluster.url(name), 4)


async def compare_with_select(server, select_url, seed):
    rng = random.Random(seed)
    server.sql(*make_tables())
    server.sql("create table marks (id int primary key)")
    server.sql("alter table marks enable row level security")
    server.sql("create policy p on marks for select to authenticated using (true)")
    server.sql("alter publication supabase_realtime add table marks")
    async with contextlib.AsyncExitStack() as stack:
        clients = {user: await stack.enter_async_context(connected(server)) for user in USERS}
        views = []
        for user, client in clients.items():
            for name in POLICIES:
                row_filter, condition = rng.choice(FILTERS)
                wanted = table(name, **({"filter": row_filter} if row_filter else {}))
                said = await client.join(name, server.token(user), wanted, table("marks"))
                assert said["message"] == "Subscribed to PostgreSQL", said
                views.append((View(client, name), user, name, condition))
        await write_and_compare(server, select_url, rng, views)
        for client in clients.values():
            assert not any(
                "resync" in frame[4].get("message", "")
                for frame in client.frames
                if frame[3] == "system"
            )


async def write_and_compare(server, select_url, rng, views):
    async with await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql:
        for mark in range(1, 9):
            for _ in range(12):
                await some_writes(rng, sql, rng.choice(list(POLICIES)))
            await sql.execute("insert into marks values (%s)", (mark + 1_000,))
            for view, user, name, condition in views:
                marked = {"id": mark + 1_000}
                await view.client.until(
                    lambda view=view, marked=marked: any(
                        change.get("record") == marked for change in view.client.changes(view.topic)
                    )
                )
                expected = await selected(select_url, user, name, condition)
                assert view.apply() == expected, (mark, user, name, condition)
