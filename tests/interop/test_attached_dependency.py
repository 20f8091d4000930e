"""A table that a policy reads becomes a partition: its rows then arrive under the root's name."""

import json

import psycopg
import pytest

from fixtures.raw_client import BOB, connected, stopped, table, write_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.postgres,
    pytest.mark.security,
    pytest.mark.asyncio,
]

SCHEMA = """
create table members_a (kind text, user_id uuid, primary key (kind, user_id));
create table notes (id int primary key, open bool, body text);
alter table notes enable row level security;
create policy p on notes for select to authenticated
  using (open or exists (select from public.members_a m where m.user_id = auth.uid()));
alter publication supabase_realtime add table notes;
"""

ATTACH = (
    "create table members (like members_a including indexes) partition by list (kind)",
    "alter publication supabase_realtime add table members",
    "alter table members attach partition members_a for values in ('a')",
)


async def test_a_policy_s_table_is_followed_on_when_it_becomes_a_partition(any_server):
    server = any_server
    server.sql(SCHEMA)
    async with (
        connected(server) as client,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await client.join("bob", server.token(BOB), table("notes"))
        await written_until_seen(sql, client, 1)
        for statement in ATTACH:
            await sql.execute(statement)
        await written_until_seen(sql, client, 1_000)
        with stopped(server):
            await sql.execute("insert into notes values (2000, false, 'OLDER')")
            await sql.execute("insert into members values ('a', %s)", (BOB,))
        await written_until_seen(sql, client, 3_000)
        assert "OLDER" not in json.dumps(client.frames)
        assert "resync: rights_changed" in client.errors("bob")


async def written_until_seen(sql, client, first_id):
    """Write rows that everybody may see until one of them arrives."""

    def is_seen():
        return any(told["record"]["id"] >= first_id for told in client.changes("bob"))

    async def write(number):
        await sql.execute("insert into notes values (%s, true, 'x')", (number,))

    await write_until(client, is_seen, write, range(first_id, first_id + 400))
