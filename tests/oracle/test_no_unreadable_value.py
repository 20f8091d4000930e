"""Law 1 by a log of versions: no event carried a value that its receiver could not read then.

One writer changes rows, memberships, policies, grants of columns and memberships of roles in a
random order, and notes after every commit what each user's SELECT shows of every version at that
moment. Half of the time the server is stopped, so that it judges long afterwards.
"""

import contextlib
import json
import random
from collections import defaultdict

import psycopg
import pytest

from fixtures.raw_client import connected, stopped, table, write_until

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

USERS = [f"00000000-0000-0000-0000-00000000000{n}" for n in "123"]
KEYS = range(1, 7)
COLUMNS = ("id", "org", "stamp", "secret")

SCHEMA = """
create table members (user_id uuid, org int, primary key (user_id, org));
create function may_see(o int) returns bool language plpgsql stable security definer
  set search_path = '' as $$ begin
    return exists (select from public.members where user_id = auth.uid() and org = o);
  end $$;
insert into members select u::uuid, o from unnest(array['{0}', '{1}', '{2}']) u,
  generate_series(1, 2) o;
create table notes (id int primary key, org int, stamp int, secret text);
create table marks (id int primary key);
alter table notes enable row level security;
alter table marks enable row level security;
create policy p on notes for select to authenticated using (may_see(org));
create policy for_role on notes for select to {role} using (org = 3);
create policy p on marks for select to authenticated using (true);
alter table notes replica identity full;
revoke all on notes from authenticated, anon;
grant select (id, org, stamp) on notes to authenticated;
alter publication supabase_realtime add table notes, marks;
"""

READABLE = """
select coalesce((select jsonb_agg(a.attname) from pg_attribute a
                  where a.attrelid = 'notes'::regclass and a.attnum > 0
                    and has_column_privilege('authenticated', 'notes', a.attname, 'SELECT')), '[]')
"""

RIGHTS = [
    "insert into members values ('{user}', {org}) on conflict do nothing",
    "delete from members where user_id = '{user}' and org = {org}",
    "alter policy p on notes using (may_see(org))",
    "alter policy p on notes using (may_see(org) or org = {org})",
    "grant select (secret) on notes to authenticated",
    "revoke select (secret) on notes from authenticated",
    "grant {role} to authenticated with inherit true",
    "revoke {role} from authenticated",
    (
        "create or replace function may_see(o int) returns bool language plpgsql stable"
        " security definer set search_path = '' as $$ begin return o = {org} or exists (select from"
        " public.members where user_id = auth.uid() and org = o); end $$"
    ),
]


class VersionLog:
    """What each user could read of each version, right after it was written and until it ended."""

    def __init__(self, sql):
        self.sql = sql
        self.written = {}
        self.readable = defaultdict(dict)

    async def note(self, stamp=None):
        """Note what everybody reads now; ``stamp`` names the version just written."""
        for user in USERS:
            for row in await self._rows(user):
                known = self.readable[user, row["stamp"]]
                known.update(row)
                if row["stamp"] == stamp:
                    self.written[user, stamp] = row

    async def _rows(self, user):
        async with self.sql.transaction(force_rollback=True):
            cursor = await self.sql.execute(READABLE)
            columns = [name for name in (await cursor.fetchone())[0] if name in COLUMNS]
            claims = json.dumps({"sub": user, "role": "authenticated"})
            await self.sql.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
            await self.sql.execute("set local role authenticated")
            pairs = ", ".join(f"'{name}', {name}" for name in columns)
            cursor = await self.sql.execute(f"select jsonb_build_object({pairs}) from notes")
            return [row[0] for row in await cursor.fetchall()]

    def complaints(self, user, changes):
        for change in changes:
            if change["table"] != "notes":
                continue
            record, old = change.get("record") or {}, change.get("old_record") or {}
            if (
                record
                and not record.items() <= self.written.get((user, record["stamp"]), {}).items()
            ):
                yield "record", user, change
            if len(old) > 1 and not old.items() <= self.readable[user, old["stamp"]].items():
                yield "old_record", user, change


async def change_something(rng, sql, log, stamp, role):
    """Write one version, or change rights; sometimes both in one transaction."""
    before = rng.random()
    rights = rng.choice(RIGHTS).format(user=rng.choice(USERS), org=rng.randint(1, 3), role=role)
    key, org = rng.choice(KEYS), rng.randint(1, 3)
    write = (
        (
            "insert into notes values (%s, %s, %s, %s) on conflict (id) do update"
            " set org = excluded.org, stamp = excluded.stamp, secret = excluded.secret"
        ),
        (key, org, stamp, f"secret {stamp}"),
    )
    if before < 0.25:
        await sql.execute(rights)
        await log.note()
    elif before < 0.35:
        async with sql.transaction():
            await sql.execute(rights)
            # The rights count from the beginning of the transaction, so also for the old version.
            await log.note()
            await sql.execute(*write)
        await log.note(stamp)
    elif before < 0.45:
        await sql.execute("delete from notes where id = %s", (key,))
    else:
        await sql.execute(*write)
        await log.note(stamp)


async def mark_seen_by_all(sql, client, number):
    """Write marks until every channel has one: whatever came before it was delivered."""
    await write_until(
        client,
        lambda: all(
            any(
                change["table"] == "marks" and change["record"]["id"] >= number * 1_000
                for change in client.changes(user)[-50:]
            )
            for user in USERS
        ),
        lambda mark: sql.execute("insert into marks values (%s)", (mark,)),
        range(number * 1_000, number * 1_000 + 400),
        pause_s=0.1,
    )


@contextlib.contextmanager
def role_of_its_own(connection_url, name):
    with psycopg.connect(connection_url, autocommit=True) as connection:
        connection.execute(f"create role {name}")
    try:
        yield
    finally:
        with psycopg.connect(connection_url, autocommit=True) as connection:
            connection.execute("drop policy if exists for_role on notes")
            connection.execute(f"drop role {name}")


async def run(server, superuser_url, seed):
    rng = random.Random(seed)
    role = "third_of_" + server.database_url.rsplit("/", 1)[1]
    with role_of_its_own(superuser_url, role):
        server.sql(SCHEMA.format(*USERS, role=role))
        async with (
            connected(server) as client,
            await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as sql,
        ):
            for user in USERS:
                await client.join(user, server.token(user), table("notes"), table("marks"))
            log = VersionLog(sql)
            for number in range(1, 11):
                with stopped(server) if number % 2 else contextlib.nullcontext():
                    for stamp in range(number * 100, number * 100 + 25):
                        await change_something(rng, sql, log, stamp, role)
                await mark_seen_by_all(sql, client, number)
    return log, client


@pytest.mark.security
@pytest.mark.parametrize("seed", [1, 103])
async def test_no_event_carried_a_value_that_its_receiver_could_not_read(server, seed):
    log, client = await run(server, server.database_url, seed)
    check(log, client)


async def test_the_same_holds_as_a_plain_owner(plain_server, plain_cluster):
    name = plain_server.database_url.rsplit("/", 1)[1]
    log, client = await run(plain_server, plain_cluster.url(name), 3)
    check(log, client)


def check(log, client):
    told = {user: client.changes(user) for user in USERS}
    assert [c for user in USERS for c in log.complaints(user, told[user])] == []
    notes = [c for user in USERS for c in told[user] if c["table"] == "notes"]
    assert len(notes) > 50
    assert any("secret" in (change.get("record") or {}) for change in notes)
    resyncs = [said["message"] for user in USERS for said in client.systems(user)[1:]]
    assert "resync: rights_changed" in resyncs
