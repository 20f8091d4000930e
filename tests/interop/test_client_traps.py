"""What applications do with the official clients: tokens, names, many channels, restarts."""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

import psycopg
import pytest
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from fixtures.raw_client import ALICE, BOB
from fixtures.serve_process import serving
from fixtures.server import JWT_SECRET
from heliograph.core.tokens.minting import mint_legacy_key, mint_token
from heliograph.postgres.cluster import free_port

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

ROOT = Path(__file__).parents[2]
ANON_KEY = mint_legacy_key(JWT_SECRET, "anon")
SUBSCRIBED = "Subscribed to PostgreSQL"
ODD = ("a b/ç:*;%'\"", "realtime:twice", "{}[]\\", "*")

NOTES = """
create table notes (id int primary key, owner uuid);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
alter table notes replica identity full;
alter publication supabase_realtime add table notes;
"""


def token(subject):
    claims = {"role": "authenticated", "sub": subject}
    return mint_token(JWT_SECRET, claims, now_s=time.time(), ttl_s=600)


@pytest.fixture
def served(postgres_url, tmp_path):
    """A server with the table of notes."""
    with serving(postgres_url, tmp_path) as running:
        with psycopg.connect(postgres_url, autocommit=True) as sql:
            sql.execute(NOTES)
        yield running


class Writer:
    """Writes notes with rising ids."""

    def __init__(self, sql):
        self.sql = sql
        self.last = 0

    async def insert(self, owner=ALICE):
        self.last += 1
        await self.sql.execute("insert into notes values (%s, %s)", (self.last, owner))
        return self.last


@contextlib.asynccontextmanager
async def writing(url):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
        yield Writer(sql)


# --- supabase-js -----------------------------------------------------------------------------


class Page:
    """`interop/client_traps.mjs` under Node."""

    def __init__(self, process):
        self.process = process
        self.told = []
        self._news = asyncio.Event()

    async def read(self):
        while line := await self.process.stdout.readline():
            self.told.append(json.loads(line))
            self._news.set()

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def do(self, command):
        self.process.stdin.write(f"{command}\n".encode())
        await self.until(lambda: {"done": command} in self.told)

    def systems(self, name):
        return [one["system"] for one in self.told if one.get("on") == name and "system" in one]

    def statuses(self, name):
        return [one["status"] for one in self.told if one.get("on") == name and "status" in one]

    def seen(self, name):
        return [one["id"] for one in self.told if one.get("on") == name and "change" in one]

    def places(self, name, number):
        own = [one for one in self.told if one.get("on") == name and one.get("id") == number]
        return {one["place"] for one in own}


@contextlib.asynccontextmanager
async def page(served):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "scripts" / "node.py"), "node"),
        str(ROOT / "interop" / "client_traps.mjs"),
        *(served.url, ANON_KEY, token(ALICE), token(BOB)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    opened = Page(process)
    reading = asyncio.create_task(opened.read())
    try:
        yield opened
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading
        process._transport.close()


async def test_supabase_js_changes_from_nobody_to_a_user_and_never_to_another(served, postgres_url):
    async with page(served) as js, writing(postgres_url) as writer:
        await js.do("anonymous")
        await js.until(lambda: js.systems("mine") == [SUBSCRIBED])
        await writer.insert()
        await js.do("alice")
        await js.until(lambda: js.systems("mine") == [SUBSCRIBED] * 2)
        seen = await writer.insert()
        await js.until(lambda: js.seen("mine") == [seen])
        await js.do("bob")
        await js.until(lambda: js.statuses("mine")[-1:] == ["CLOSED"])
        assert "another user" in js.systems("mine")[-1]
        await writer.insert(BOB)
        await js.do("again")
        await js.until(lambda: js.systems("mine")[-1] == SUBSCRIBED)
        last = await writer.insert(BOB)
        await js.until(lambda: js.seen("mine") == [seen, last])


async def test_supabase_js_has_many_channels_with_odd_names_and_many_bindings(served, postgres_url):
    async with page(served) as js, writing(postgres_url) as writer:
        await js.do("alice")
        for command in ("odd", "many", "bindings"):
            await js.do(command)
        names = [*ODD, *(f"many {number}" for number in range(60)), "bindings"]
        await js.until(lambda: all(js.systems(name) for name in names))
        assert all(set(js.systems(name)) == {SUBSCRIBED} for name in names)
        number = await writer.insert()
        # All, INSERT only, and the one whose filter is this id; not DELETE, not id > 100.
        await js.until(lambda: {0, 2, 5 + number} <= js.places("bindings", number))
        await js.until(lambda: all(js.seen(name) for name in names))
        assert js.places("bindings", number) <= {0, 1, 2, 5 + number}
        await js.do("everything")
        await js.until(lambda: any(one.get("removed") == ["ok"] * len(names) for one in js.told))


async def test_supabase_js_is_told_clearly_what_is_not_there_yet(served, postgres_url):
    async with page(served) as js, writing(postgres_url) as writer:
        await js.do("alice")
        await js.do("anonymous")
        await js.do("private")
        await js.until(lambda: js.statuses("secret"))
        (failure,) = [one for one in js.told if one.get("on") == "secret"][:1]
        assert failure["status"] == "CHANNEL_ERROR"
        assert "private channels are not available" in failure["error"]
        await js.do("push")
        assert {"sent": "error"} in js.told
        assert {"tracked": "error"} in js.told
        await js.do("hasty")
        assert {"unsubscribed": "ok"} in js.told
        await js.until(lambda: js.systems("mine") == [SUBSCRIBED])
        number = await writer.insert()
        await js.until(lambda: js.seen("mine") == [number])


# --- realtime (Python) -----------------------------------------------------------------------


class Program:
    """A stock Python client; remembers what its channels were told."""

    def __init__(self, served, key=ANON_KEY):
        url = served.url.replace("http", "ws", 1) + "/realtime/v1"
        # Five attempts so soon after one another would be over before a busy server is back.
        self.client = AsyncRealtimeClient(url, key, initial_backoff=0.2, max_retries=10)
        self.changes, self.systems, self.states = {}, {}, {}
        self._news = asyncio.Event()

    def channel(self, name, params=None, **binding):
        for kept in (self.changes, self.systems, self.states):
            kept[name] = []
        channel = self.client.channel(name, params)
        if params is None:
            channel.on_postgres_changes(
                *("*", lambda change: self._take(self.changes, name, change["data"])),
                **{"schema": "public", "table": "notes", **binding},
            )
        channel.on_system(lambda system: self._take(self.systems, name, system.message))
        return channel

    async def join(self, name, params=None, **binding):
        channel = self.channel(name, params, **binding)
        await channel.subscribe(
            lambda state, error: self._take(self.states, name, (state, str(error)))
        )
        return channel

    def _take(self, kept, name, what):
        kept[name].append(what)
        self._news.set()

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def seen(self, name):
        return [change["record"]["id"] for change in self.changes[name]]


@contextlib.asynccontextmanager
async def program(served, key=ANON_KEY):
    opened = Program(served, key)
    await opened.client.connect()
    try:
        yield opened
    finally:
        await opened.client.close()


async def test_python_changes_from_nobody_to_a_user_and_never_to_another(served, postgres_url):
    async with program(served) as py, writing(postgres_url) as writer:
        await py.join("mine")
        await py.until(lambda: py.systems["mine"] == [SUBSCRIBED])
        await writer.insert()
        await py.client.set_auth(token(ALICE))
        await py.until(lambda: py.systems["mine"] == [SUBSCRIBED] * 2)
        seen = await writer.insert()
        await py.until(lambda: py.seen("mine") == [seen])
        await py.client.set_auth(token(BOB))
        await py.until(lambda: py.states["mine"][-1][0] == RealtimeSubscribeStates.CLOSED)
        assert "another user" in str(py.states["mine"])
        await writer.insert(BOB)
        await py.join("after")
        await py.until(lambda: py.systems["after"] == [SUBSCRIBED])
        await writer.insert(ALICE)
        last = await writer.insert(BOB)
        await py.until(lambda: py.seen("after") == [last])
        assert py.seen("mine") == [seen]


async def test_python_has_many_channels_with_odd_names(served, postgres_url):
    async with program(served, token(ALICE)) as py, writing(postgres_url) as writer:
        names = [*ODD, *(f"many {number}" for number in range(60))]
        await asyncio.gather(*[py.join(name) for name in names])
        await py.until(lambda: all(SUBSCRIBED in py.systems[name] for name in names))
        number = await writer.insert()
        await py.until(lambda: all(py.seen(name) == [number] for name in names))
        await py.client.remove_all_channels()
        assert py.client.channels == {}


async def test_python_is_told_clearly_what_is_not_there_yet(served, postgres_url):
    async with program(served, token(ALICE)) as py, writing(postgres_url) as writer:
        await py.join("secret", {"config": {"private": True, "broadcast": None, "presence": None}})
        await py.until(lambda: py.states["secret"])
        state, error = py.states["secret"][0]
        assert state == RealtimeSubscribeStates.CHANNEL_ERROR
        assert "private channels are not available" in error
        channel = py.channel("hasty")
        joining = asyncio.ensure_future(channel.subscribe())
        await channel.unsubscribe()
        await joining
        await py.join("mine")
        await py.until(lambda: SUBSCRIBED in py.systems["mine"])
        number = await writer.insert()
        await py.until(lambda: py.seen("mine") == [number])
        assert py.changes["hasty"] == []


@pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")
async def test_both_clients_come_back_by_themselves_after_a_restart(postgres_url, tmp_path):
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(writing(postgres_url))
        with serving(postgres_url, tmp_path, port=port) as first:
            await writer.sql.execute(NOTES)
            js = await stack.enter_async_context(page(first))
            py = await stack.enter_async_context(program(first, token(ALICE)))
            await js.do("alice")
            await js.do("anonymous")
            await py.join("mine")
            await js.until(lambda: SUBSCRIBED in js.systems("mine"))
            await py.until(lambda: SUBSCRIBED in py.systems["mine"])
        before = len(js.systems("mine")), len(py.systems["mine"])
        second = serving(postgres_url, tmp_path, port=port)
        await asyncio.to_thread(second.__enter__)
        stack.push_async_callback(asyncio.to_thread, second.__exit__, None, None, None)
        await js.until(lambda: js.systems("mine")[before[0] :].count(SUBSCRIBED) == 1)
        await py.until(lambda: py.systems["mine"][before[1] :].count(SUBSCRIBED) == 1)
        number = await writer.insert()
        await js.until(lambda: js.seen("mine") == [number])
        await py.until(lambda: py.seen("mine") == [number])
