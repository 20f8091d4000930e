"""Clients that are gone before their joins are checked, over and over."""

import asyncio
import json
import random

import pytest
import websockets

from fixtures.raw_client import ALICE, connected, subscribed, table

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

CLIENTS = 20
ROUNDS = 80


async def join_and_leave(server, chance):
    """Join some channels and cut the line within a tenth of a second, again and again."""
    url = f"{server.websocket_url}/websocket?vsn=2.0.0&apikey={server.anon_key}"
    for _ in range(ROUNDS):
        socket = await websockets.connect(url)
        for ref in map(str, range(chance.randint(1, 6))):
            more = chance.choice([{}, {"filter": "body=match.^x"}])
            config = {"postgres_changes": [table("notes", **more)]}
            message = [ref, ref, f"realtime:{ref}", "phx_join", {"config": config}]
            await socket.send(json.dumps(message))
        delay_s = chance.choice([0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
        asyncio.get_running_loop().call_later(delay_s, socket.transport.abort)
        await socket.wait_closed()


async def test_the_server_still_answers_and_delivers(server):
    server.sql(
        "create table notes (id int primary key, owner uuid, body text);"
        "alter table notes enable row level security;"
        "create policy own on notes for select using (owner = (select auth.uid()));"
        "alter publication supabase_realtime add table notes"
    )
    async with subscribed(server, "notes") as (before, sql):
        leaving = (join_and_leave(server, random.Random(number)) for number in range(CLIENTS))
        await asyncio.gather(*leaving)
        async with connected(server) as after:
            said = await after.join("notes", server.token(ALICE), table("notes"))
            assert said["message"] == "Subscribed to PostgreSQL"
            await sql.execute("alter policy own on notes using (owner = auth.uid())")
            await sql.execute("insert into notes values (1, %s, 'x')", (ALICE,))
            for client in (before, after):
                await client.until(lambda client=client: client.changes("notes"))
