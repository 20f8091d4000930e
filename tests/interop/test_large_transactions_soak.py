"""One transaction of a million rows through the real server: memory, order, completeness.

Two subscribers: one with the service role, one whose rows are judged by a policy. What they got is
compared with the table, and the memory of the server with what 100,000 rows took.
"""

import asyncio
import contextlib
import json
from pathlib import Path

import psycopg
import pytest

from fixtures.raw_client import BOB, RawClient, connected, table

pytestmark = [pytest.mark.soak, pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

SMALL, LARGE = 100_000, 1_000_000

SCHEMA = """
create table bulk (id int primary key, owner uuid, filler text);
alter table bulk enable row level security;
create policy own on bulk for select to authenticated using (owner = (select auth.uid()));
alter table bulk replica identity full;
create table chat (id int primary key);
alter publication supabase_realtime add table bulk, chat;
"""


class CountingClient(RawClient):
    """Keeps the ids of the rows it was told, and every other frame."""

    def __init__(self, socket):
        super().__init__(socket)
        self.ids = []

    async def news(self):
        """Wait for one more frame."""
        count = len(self.ids)
        await self.until(lambda: len(self.ids) > count, 60)

    async def read(self):
        async for text in self.socket:
            frame = json.loads(text)
            if frame[3] == "postgres_changes":
                self.ids.append(frame[4]["data"]["record"]["id"])
            else:
                self.frames.append(frame)
            self._news.set()


class SlowClient(CountingClient):
    """Takes a few frames for each row that another client got, until that one has all."""

    def follow(self, quick):
        self._quick = quick

    async def read(self):
        socket = self.socket
        async for text in socket:
            frame = json.loads(text)
            if frame[3] != "postgres_changes":
                self.frames.append(frame)
            else:
                self.ids.append(frame[4]["data"]["record"]["id"])
                while len(self.ids) > 30 * len(self._quick.ids) and self._quick.ids[-1:] != [0]:
                    await self._quick.news()
            self._news.set()


def memory_kb(pid):
    """Peak resident memory since the last `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextlib.asynccontextmanager
async def subscribed(server, token, *names, kind=CountingClient):
    max_queue = 16 if kind is SlowClient else None
    async with connected(server, kind=kind, max_queue=max_queue) as client:
        await client.join("t", token, *map(table, names))
        yield client


async def load(server, rows, *clients):
    """Write the rows in one transaction and one row after it; wait until everybody has that one."""
    pid = server.process.pid
    forget_peak(pid)
    async with await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql:
        await sql.execute(
            "insert into bulk select n, case when n %% 100 = 0 then %s::uuid end, repeat('x', 100)"
            " from generate_series(1, %s) n",
            (BOB, rows),
        )
        await sql.execute("insert into bulk values (0, %s, 'after')", (BOB,))
    for client in clients:
        await client.until(lambda client=client: client.ids and client.ids[-1] == 0, 600)
    return memory_kb(pid)


async def test_a_million_rows_arrive_in_order_and_memory_does_not_grow(server):
    server.sql(SCHEMA)
    async with (
        subscribed(server, server.service_role_key, "bulk") as service,
        subscribed(server, server.token(BOB), "bulk") as bob,
    ):
        peaks_kb = {}
        for rows in (SMALL, LARGE):
            peaks_kb[rows] = await load(server, rows, service, bob)
            assert service.ids == [*range(1, rows + 1), 0]
            assert bob.ids == [*range(100, rows + 1, 100), 0]
            server.sql("truncate bulk")
            service.ids.clear()
            bob.ids.clear()
    print(f"peak memory of the server in kB by rows of the transaction: {peaks_kb}")
    metrics = server.metrics()
    resyncs = {name for name in metrics if name.startswith("heliograph_resyncs_total{")}
    assert resyncs == {'heliograph_resyncs_total{reason="truncated"}'}
    assert peaks_kb[LARGE] < 1.25 * peaks_kb[SMALL]


async def test_a_million_rows_wait_for_a_slow_reader_and_others_do_not(server):
    server.sql(SCHEMA)
    async with (
        subscribed(server, server.service_role_key, "chat") as other,
        subscribed(server, server.token(BOB), "bulk") as bob,
        subscribed(server, server.service_role_key, "bulk", kind=SlowClient) as slow,
    ):
        slow.follow(bob)
        loading = asyncio.create_task(load(server, LARGE, bob))
        await bob.until(lambda: bob.ids, 600)
        server.sql("insert into chat values (1)")
        await other.until(lambda: other.ids, 600)
        await loading
        # It is far behind when the quick one has all.
        assert len(slow.ids) < LARGE / 2
        await slow.until(lambda: slow.ids and slow.ids[-1] == 0, 600)
        assert slow.ids == [*range(1, LARGE + 1), 0]
        assert bob.ids == [*range(100, LARGE + 1, 100), 0]
        assert {said["message"] for said in slow.systems("t")} == {"Subscribed to PostgreSQL"}
