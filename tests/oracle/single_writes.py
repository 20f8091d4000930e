"""Rows of one table, written one at a time, and what one user's SELECT shows of each."""

import json

from fixtures.raw_client import table

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


async def join_all(client, server, wanted):
    for number, (user, row_filter) in enumerate(wanted):
        more = {"filter": row_filter[0]} if row_filter[0] else {}
        said = await client.join(
            str(number), server.token(user), table("notes", **more), table("marks")
        )
        assert said["status"] == "ok"
