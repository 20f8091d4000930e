"""The whole official Python client (`supabase`), as an application uses it, gets its live rows."""

import asyncio

import pytest
import supabase

from fixtures.raw_client import ALICE, BOB

NOTES = """
create table notes (id int primary key, owner uuid, body text);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
alter table notes replica identity full;
alter publication supabase_realtime add table notes;
"""


@pytest.mark.postgres
@pytest.mark.interop
@pytest.mark.asyncio
async def test_the_whole_client_signed_in_by_a_token_sees_its_own_rows(server):
    server.sql(NOTES)
    client = await supabase.acreate_client(server.url, server.anon_key)
    await client.realtime.set_auth(server.token(ALICE))
    changes: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    is_ready = asyncio.Event()
    channel = client.channel("notes")
    channel.on_postgres_changes("*", changes.put_nowait, schema="public", table="notes")
    channel.on_system(lambda _: is_ready.set())
    async with asyncio.timeout(20):
        await channel.subscribe()
        await is_ready.wait()
        server.sql(
            f"insert into notes values (1, '{BOB}', 'hidden')",
            f"insert into notes values (2, '{ALICE}', 'shown')",
        )
        assert (await changes.get())["data"]["record"]["id"] == 2
    await client.remove_all_channels()
    await client.realtime.close()
    assert changes.empty()
