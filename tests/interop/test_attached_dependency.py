"""A table that a policy reads becomes a partition: its rows then arrive under the root's name."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from raw_client import RawClient, table

pytestmark = [
    pytest.mark.interop,
    pytest.mark.postgres,
    pytest.mark.security,
    pytest.mark.asyncio,
]

BOB = "00000000-0000-0000-0000-00000000000b"

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
    client = await RawClient.connect(server)
    reading = asyncio.create_task(client.read())
    async with await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql:
        await client.join("bob", server.token(BOB), table("notes"))
        await written_until_seen(sql, client, 1)
        for statement in ATTACH:
            await sql.execute(statement)
        await written_until_seen(sql, client, 1_000)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            await sql.execute("insert into notes values (2000, false, 'OLDER')")
            await sql.execute("insert into members values ('a', %s)", (BOB,))
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        await written_until_seen(sql, client, 3_000)
    await client.socket.close()
    await reading
    assert "OLDER" not in json.dumps(client.frames)
    assert "resync: rights_changed" in [said["message"] for said in client.systems("bob")]


async def written_until_seen(sql, client, first_id):
    """Write rows that everybody may see until one of them arrives."""
    for number in range(first_id, first_id + 400):
        await sql.execute("insert into notes values (%s, true, 'x')", (number,))
        with contextlib.suppress(TimeoutError):
            await client.until(
                lambda: any(told["record"]["id"] >= first_id for told in client.changes("bob")), 0.1
            )
            return
    raise AssertionError("nothing has arrived")
