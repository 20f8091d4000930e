"""Committed rows reach the official Python client (`realtime`), each user its own."""

import asyncio
import contextlib

import psycopg
import pytest
from realtime import AsyncRealtimeClient

from fixtures.raw_client import ALICE, BOB

NOTES = """
create table notes (id int primary key, owner uuid, body text);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
alter table notes replica identity full;
alter publication supabase_realtime add table notes;
"""


class Listener:
    """A stock client with one channel; collects what it is told."""

    def __init__(self, server, token):
        self.client = AsyncRealtimeClient(server.websocket_url, token=token, auto_reconnect=False)
        self.changes = []
        self.systems = []
        self._news = asyncio.Event()

    async def join(self, table="notes", **options):
        channel = self.client.channel(f"{table}-changes")
        channel.on_postgres_changes("*", self._take, schema="public", table=table, **options)
        channel.on_system(self._take_system)
        await self.client.connect()
        await channel.subscribe()
        await self.until(lambda: any(s["status"] == "ok" for s in self.systems))
        return self

    def _take(self, payload, *_):
        self.changes.append(payload["data"])
        self._news.set()

    def _take_system(self, payload, *_):
        self.systems.append(payload if isinstance(payload, dict) else payload.model_dump())
        self._news.set()

    async def until(self, condition, deadline_s=10.0):
        async with asyncio.timeout(deadline_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def seen(self):
        return [(c["type"], (c.get("record") or c.get("old_record"))["id"]) for c in self.changes]


@contextlib.asynccontextmanager
async def listening(server, *tokens):
    listeners = [Listener(server, token) for token in tokens]
    try:
        for listener in listeners:
            await listener.join()
        yield listeners
    finally:
        for listener in listeners:
            await listener.client.close()


@pytest.mark.postgres
@pytest.mark.interop
@pytest.mark.asyncio
async def test_each_user_is_told_of_its_own_rows_and_of_no_others(each_server):
    server = each_server
    server.sql(NOTES)
    async with listening(server, server.token(ALICE), server.token(BOB)) as (alice, bob):
        server.sql(
            f"insert into notes values (1, '{ALICE}', 'a'), (2, '{BOB}', 'b')",
            "update notes set body = 'c' where id = 1",
            f"update notes set owner = '{BOB}' where id = 1",
            "delete from notes where id = 2",
            f"insert into notes values (9, '{ALICE}', 'end'), (10, '{BOB}', 'end')",
        )
        await alice.until(lambda: ("INSERT", 9) in alice.seen())
        await bob.until(lambda: ("INSERT", 10) in bob.seen())
        assert alice.seen() == [("INSERT", 1), ("UPDATE", 1), ("DELETE", 1), ("INSERT", 9)]
        assert bob.seen() == [("INSERT", 2), ("UPDATE", 1), ("DELETE", 2), ("INSERT", 10)]
        entered = bob.changes[1]
        assert entered["old_record"] == {"id": 1}


@pytest.mark.postgres
@pytest.mark.interop
@pytest.mark.asyncio
async def test_subscribed_means_subscribed(each_server):
    server = each_server
    server.sql(NOTES)
    async with listening(server, server.token(ALICE)) as (alice,):
        connection = await psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
        async with connection:
            await connection.execute("insert into notes values (1, %s, 'x')", (ALICE,))
        await alice.until(lambda: alice.seen() == [("INSERT", 1)])
