"""A thousand cuts at random bytes: nothing lost, doubled or out of order (P1)."""

import asyncio
import json
import os
import random

import psycopg
import pytest
import websockets

from fixtures.raw_client import ALICE, table
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

CLIENTS = 50
CUTS_EACH = 20
AHEAD = 100
SEED = int(os.environ.get("CUTS_SEED", "1"))

TABLES = (
    "create table w (id int primary key, owner uuid, body text)",
    "alter table w enable row level security",
    "create policy own on w for select to authenticated using (owner = (select auth.uid()))",
    # A plain owner's service_role does not bypass row security.
    "create policy everything on w for select to service_role using (true)",
    "grant select on w to authenticated, service_role",
    "alter table w replica identity full",
    "alter publication supabase_realtime add table w",
)


class CutClient:
    """Keeps what was handed on before a position, and is cut after some bytes."""

    def __init__(self, url, token, chance):
        self._url = url
        self._token = token
        self._chance = chance
        self._since = None
        self.ids = []

    async def begin(self):
        """Get a first position: where a client begins is not what is tested."""
        await self._read(lambda: self._since is not None, None)

    async def suffer(self):
        """Be cut again and again."""
        for _ in range(CUTS_EACH):
            await self._read(lambda: False, self._chance.randrange(200, 20_000))

    async def finish(self, count):
        """Read until so many rows were handed on."""
        await self._read(lambda: len(self.ids) >= count, None)

    async def _read(self, is_enough, budget):
        socket = await websockets.connect(self._url, max_queue=None)
        try:
            asked = table("w", positions=True, since=self._since)
            payload = {"config": {"postgres_changes": [asked]}, "access_token": self._token}
            await socket.send(json.dumps(["1", "1", "realtime:w", "phx_join", payload]))
            waiting = []
            async for text in socket:
                if budget is not None:
                    budget -= len(text)
                    if budget < 0:
                        return
                waiting = self._take(json.loads(text), waiting)
                if is_enough():
                    return
        finally:
            socket.transport.abort()

    def _take(self, frame, waiting):
        _, _, _, event, said = frame
        if event == "postgres_changes":
            return [*waiting, said["data"]["record"]["id"]]
        if event == "system" and said["message"] == "resync":
            raise AssertionError(f"resync: {said['reason']}")
        if event == "system" and "position" in said:
            self.ids += waiting
            self._since = said["position"]
            return []
        return waiting


@pytest.mark.parametrize("role", ["service_role", "user"])
async def test_a_thousand_cuts_cost_nothing(any_server, role):
    server = any_server
    server.sql(*TABLES)
    chance = random.Random(SEED)
    token = server.service_role_key if role == "service_role" else server.token(ALICE)
    url = f"{server.websocket_url}/websocket?vsn=2.0.0&apikey={server.anon_key}"
    clients = [CutClient(url, token, chance) for _ in range(CLIENTS)]
    written = 0
    is_over = asyncio.Event()

    def are_followed():
        """Tell whether every client has come far enough for more to be written."""
        return is_over.is_set() or min(len(client.ids) for client in clients) > written - AHEAD

    async def write():
        nonlocal written
        connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
        async with await connecting as sql:
            while not is_over.is_set():
                size = chance.choice([1, 1, 1, 5, 30])
                await sql.execute(
                    "insert into w select g, %s, 'x' from generate_series(%s::int, %s::int) g",
                    (ALICE, written, written + size - 1),
                )
                written += size
                await wait_until(are_followed, deadline_s=60)

    async with asyncio.timeout(60):
        await asyncio.gather(*(client.begin() for client in clients))
        writing = asyncio.create_task(write())
        await asyncio.gather(*(client.suffer() for client in clients))
        is_over.set()
        await writing
        await asyncio.gather(*(client.finish(written) for client in clients))
    for client in clients:
        assert client.ids == list(range(written))
    assert server.metrics()["heliograph_resumes_total"] >= CLIENTS * CUTS_EACH / 2
