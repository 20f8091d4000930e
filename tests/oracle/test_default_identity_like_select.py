"""What the default identity promises, change by change, against SELECT right after each commit.

Without FULL the old row is not known: every INSERT and UPDATE whose new version is seen is told,
leaves are not noticed, and of a DELETE the key goes to everybody or, with `strict`, to nobody.
"""

import json
import random

import psycopg
import pytest

from fixtures.raw_client import connected, table

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

USERS = [f"00000000-0000-0000-0000-00000000000{n}" for n in "123"]

SCHEMA = """
create table members (user_id uuid, org int, primary key (user_id, org));
create function is_member(u uuid, o int) returns bool language plpgsql stable security definer
  set search_path = '' as
  $$ begin return exists (select from public.members where user_id = u and org = o); end $$;
insert into members values ('{0}', 1), ('{0}', 2), ('{1}', 2), ('{2}', 3);
create table notes (id int primary key, org int, owner uuid, note text);
create table marks (id int primary key);
alter table notes enable row level security;
alter table marks enable row level security;
create policy p on notes for select to authenticated
  using (owner = (select auth.uid()) or is_member((select auth.uid()), org));
create policy p on marks for select to authenticated using (true);
alter publication supabase_realtime add table notes, marks;
"""

# A filter as the client writes it, as SQL, and whether the key of a deleted row decides it.
FILTERS = [
    (None, "true", lambda _key: True),
    ("id=lte.6", "id <= 6", lambda key: key <= 6),
    ("org=in.(1,3)", "org in (1, 3)", lambda _key: False),
    ("note=like.p%", "note like 'p%%'", lambda _key: False),
]


async def one_write(rng, sql):
    """Change one row in one transaction; return (type, key, old key) or None if nothing was."""
    key = rng.randint(1, 10)
    values = (rng.randint(1, 3), rng.choice([*USERS, None]), rng.choice(["pear", "quince", None]))
    match rng.randint(0, 5):
        case 0 | 1:
            statement = "insert into notes values (%s, %s, %s, %s) on conflict do nothing"
            kind, arguments, new_key = "INSERT", (key, *values), key
        case 2 | 3:
            statement = "update notes set org = %s, owner = %s, note = %s where id = %s"
            kind, arguments, new_key = "UPDATE", (*values, key), key
        case 4:
            statement = (
                "update notes set id = %s where id = %s"
                " and not exists (select from notes where id = %s)"
            )
            kind, new_key = "UPDATE", rng.randint(1, 10)
            arguments = (new_key, key, new_key)
        case _:
            statement, kind, arguments, new_key = (
                "delete from notes where id = %s",
                "DELETE",
                (key,),
                None,
            )
    done = await sql.execute(statement, arguments)
    return (kind, new_key, key) if done.rowcount else None


async def row_seen(reader, user, condition, key):
    """Return a row as one user's SELECT shows it now, or None."""
    async with reader.transaction(force_rollback=True):
        claims = json.dumps({"sub": user, "role": "authenticated"})
        await reader.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        await reader.execute("set local role authenticated")
        cursor = await reader.execute(
            f"select to_jsonb(t) from notes t where id = %s and ({condition})", (key,)
        )
        found = await cursor.fetchone()
    return found and found[0]


async def expected_of(reader, written, user, row_filter, *, deletes):
    kind, new_key, old_key = written
    _, condition, key_passes = row_filter
    if kind == "DELETE":
        return ("DELETE", {"id": old_key}) if deletes and key_passes(old_key) else None
    row = await row_seen(reader, user, condition, new_key)
    return None if row is None else (kind, row)


def told(client, topic):
    return [
        (change["type"], change["old_record" if change["type"] == "DELETE" else "record"])
        for change in client.changes(topic)
        if change["table"] == "notes"
    ]


@pytest.mark.security
@pytest.mark.parametrize("setting", ["auto", "strict", "compatible"])
async def test_versions_are_told_as_select_shows_them_and_nothing_else(start_server, setting):
    server = start_server(HELIOGRAPH_DELETE_VISIBILITY=setting)
    rng = random.Random(setting)
    server.sql(SCHEMA.format(*USERS))
    wanted = [(user, row_filter) for user in USERS for row_filter in FILTERS]
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as reader,
    ):
        await join_all(client, server, wanted)
        expected = await written_and_expected(sql, reader, rng, wanted, deletes=setting != "strict")
        for number, (user, row_filter) in enumerate(wanted):
            topic = str(number)
            await client.until(
                lambda topic=topic: any(c["table"] == "marks" for c in client.changes(topic))
            )
            assert told(client, topic) == expected[number], (user, row_filter[0])
            # Of an old row nobody learns more than the key.
            for change in client.changes(topic):
                assert set(change.get("old_record") or {}) <= {"id"}
        assert sum(map(len, expected)) > 100


async def join_all(client, server, wanted):
    for number, (user, row_filter) in enumerate(wanted):
        more = {"filter": row_filter[0]} if row_filter[0] else {}
        said = await client.join(
            str(number), server.token(user), table("notes", **more), table("marks")
        )
        assert said["status"] == "ok"


async def written_and_expected(sql, reader, rng, wanted, *, deletes):
    """Write for a while; return what each of the wanted bindings is to be told of it."""
    expected = [[] for _ in wanted]
    for _ in range(80):
        written = await one_write(rng, sql)
        if written is None:
            continue
        for place, (user, row_filter) in enumerate(wanted):
            found = await expected_of(reader, written, user, row_filter, deletes=deletes)
            if found is not None:
                expected[place].append(found)
    await sql.execute("insert into marks values (1)")
    return expected
