"""The application of docs/howto, with Heliograph in it, and the official client."""

import asyncio
import contextlib
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import httpx
import psycopg
import pytest
from realtime import AsyncRealtimeClient

from fixtures.pages import code_blocks, commands
from fixtures.raw_client import ALICE
from fixtures.serve_process import environment
from fixtures.server import JWT_SECRET
from heliograph.core.tokens.minting import mint_token
from heliograph.mounting import MountedServer
from heliograph.postgres.cluster import free_port
from heliograph.postgres.process_deadline import ProcessDeadline

pytestmark = [pytest.mark.postgres, pytest.mark.interop]


PAGE = "howto/mount-in-an-application.md"

#: Added to the application on the page: the routes before the mount come first.
OWN_ROUTE = """
from starlette.responses import PlainTextResponse
from starlette.routing import Route

app.router.routes.insert(0, Route("/hello", lambda request: PlainTextResponse("hello")))
"""

NOTES = """
create table notes (id int primary key, owner uuid);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
alter table notes replica identity full;
alter publication supabase_realtime add table notes;
"""


@contextlib.contextmanager
def application(database_url, folder):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    [source] = code_blocks(PAGE, "python")
    (folder / "application.py").write_text(source + OWN_ROUTE)
    [command] = commands(PAGE, "uvicorn")
    log_path = folder / "uvicorn.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(command), "--port", str(port)],
            cwd=folder,
            env=environment(database_url),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def is_ready():
        assert process.poll() is None, log_path.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    try:
        ProcessDeadline(40).require(is_ready, "the application to be ready")
        yield process, url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(10)


def test_the_official_client_is_served_beside_the_applications_own_routes(postgres_url, tmp_path):
    claims = {"role": "authenticated", "sub": ALICE}
    token = mint_token(JWT_SECRET, claims, now_s=time.time(), ttl_s=600)

    async def subscribe(process, url):
        client = AsyncRealtimeClient(
            url.replace("http", "ws", 1) + "/realtime/v1", token, auto_reconnect=False
        )
        changes, told = [], asyncio.Event()
        channel = client.channel("notes")
        channel.on_system(lambda system: told.set() if system.status == "ok" else None)
        channel.on_postgres_changes(
            "*", lambda change: (changes.append(change), told.set()), table="notes", schema="public"
        )
        await client.connect()
        await channel.subscribe()
        async with asyncio.timeout(20):
            await told.wait()
            told.clear()
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql:
                await sql.execute("insert into notes values (1, null), (2, %s)", (ALICE,))
            await told.wait()
        assert [change["data"]["record"]["id"] for change in changes] == [2]
        with urllib.request.urlopen(f"{url}/hello", timeout=5) as answer:
            assert answer.read() == b"hello"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) in {0, -signal.SIGTERM}
        await client.close()

    with application(postgres_url, tmp_path) as (process, url):
        with psycopg.connect(postgres_url, autocommit=True) as sql:
            sql.execute(NOTES)
        asyncio.run(subscribe(process, url))


@pytest.mark.asyncio
async def test_outside_its_block_a_mounted_server_says_so():
    transport = httpx.ASGITransport(MountedServer())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"error": "Heliograph is not running"})
