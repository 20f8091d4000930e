"""PostgreSQL ends the sessions of the server, as a restart does: clients hardly notice."""

import asyncio

import psycopg
import pytest

from fixtures.raw_client import ALICE, connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.fault, pytest.mark.asyncio]

NOTES = """
create table notes (id int primary key, owner uuid);
alter table notes enable row level security;
create policy own on notes for select using (owner = (select auth.uid()));
grant select on notes to authenticated;
alter publication supabase_realtime add table notes;
"""
END = """
select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity
 where application_name like 'heliograph%%' and application_name like %s
   and datname = current_database()
"""


@pytest.mark.parametrize("which", ["%judge", "%"])
async def test_who_joins_next_is_subscribed_at_once_and_nobody_misses_anything(server, which):
    server.sql(NOTES)
    connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
    async with await connecting as sql, connected(server) as client:
        before = [f"before{number}" for number in range(20)]
        # At once, so that every connection of the pools is used and lies idle afterwards.
        await asyncio.gather(
            *(client.join(topic, server.token(ALICE), table("notes")) for topic in before)
        )
        cursor = await sql.execute(END, (which,))
        ((ended,),) = await cursor.fetchall()
        assert ended
        for number in range(5):
            said = await client.join(f"after{number}", server.token(ALICE), table("notes"))
            assert said["message"] == "Subscribed to PostgreSQL"
        await sql.execute("insert into notes values (1, %s)", (ALICE,))
        topics = [*before, *(f"after{number}" for number in range(5))]
        await client.until(lambda: all(client.changes(topic) for topic in topics))
        assert not any(client.errors(topic) for topic in topics)
