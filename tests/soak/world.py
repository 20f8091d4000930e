"""The world of a run: one PostgreSQL, one server on one port, and the gate that stops everybody."""

import asyncio
import contextlib
import json
import random
import signal
import time
from pathlib import Path

import psycopg

from fixtures.postgres import PLAIN_OWNER
from fixtures.server import run_server
from fixtures.waiting import wait_until
from heliograph.postgres.cluster import free_port
from soak.ledger import LawBrokenError
from soak.schema import SCHEMA, USERS

#: Seconds for anything to come back after a fault.
DEADLINE_S = 120.0


#: Loads at the same time; each has a connection.
LOADS_AT_ONCE = 6


class Gate:
    """Lets work begin while it is open, and knows when all that had begun has ended."""

    def __init__(self):
        self._open = asyncio.Event()
        self._open.set()
        self.active = 0

    @property
    def is_open(self):
        return self._open.is_set()

    @contextlib.asynccontextmanager
    async def passing(self):
        """Wait until the gate is open; it does not count as closed before the block has ended."""
        while not self._open.is_set():
            await self._open.wait()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    @contextlib.asynccontextmanager
    async def closed(self):
        """Let nothing begin, wait until everything has ended, and open again after the block."""
        self._open.clear()
        try:
            await wait_until(lambda: not self.active, "work to end", deadline_s=2 * DEADLINE_S)
            yield
        finally:
            self._open.set()


class World:
    """What everybody else uses.

    Attributes:
        cluster: PostgreSQL.
        database_url: Superuser URL.
        served_url: The server's: the same, or that of a plain owner, who has no event triggers.
        folder: Logs, the server's data, what was wrong.
        ledger: What happened.
        chance: Of the seed; `chance_of` gives one to each part.
        server: The running server; the last one while none runs.
        gate: Closed while a round is settled.
        is_over: Set at the end.
        clients: All of them.
        memory_mb: Of the server, at each look.
    """

    def __init__(self, cluster, folder: Path, ledger, seed, *, is_plain=False):
        self.cluster = cluster
        self.database_url = cluster.create_database()
        self.served_url = self._give_to_plain_owner() if is_plain else self.database_url
        self.folder = folder
        self.ledger = ledger
        self.seed = seed
        self.port = free_port()
        self.server = None
        self.gate = Gate()
        self.is_over = asyncio.Event()
        self.clients = []
        self._running = contextlib.ExitStack()
        self._changing = asyncio.Lock()
        self._is_meant_to_run = False
        self._kept = {}
        self._idle = []
        self._loading = asyncio.Semaphore(LOADS_AT_ONCE)
        self.memory_mb = []

    def chance_of(self, name):
        """Return the random numbers of one part of the run."""
        return random.Random(f"{self.seed} {name}")

    async def over_within(self, seconds):
        """Wait so long, or until the end; tell whether it is the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.is_over.wait(), seconds)
        return self.is_over.is_set()

    def behind(self):
        """Return by how many commits the last one of the prompt clients is behind."""
        followed = [client.keeper.followed for client in self.clients if client.is_prompt]
        return self.ledger.committed - min(followed)

    # --- the server -------------------------------------------------------------------------------

    async def start_server(self):
        """Start it on the same port and with the same state."""
        async with self._changing:
            await self._start()

    async def _start(self):
        settings = {"HELIOGRAPH_RING_TRANSACTIONS_MAX": str(self.ledger.ring_transactions)}
        running = run_server(self.served_url, self.folder, port=self.port, **settings)
        with self.ledger.cause("server_started"):
            self.server = await asyncio.to_thread(self._running.enter_context, running)
        self._is_meant_to_run = True
        # Keys are minted at each start; a client keeps the one that it had.
        if not self._kept:
            anon, service = self.server.anon_key, self.server.service_role_key
            self._kept = {
                "anon": anon,
                None: service,
                **{user: self.server.token(user, ttl_s=86_400) for user in USERS},
            }

    async def end_server(self, number=signal.SIGKILL):
        """Send a signal and wait for the end."""
        async with self._changing:
            self._is_meant_to_run = False
            self.note_memory()
            await asyncio.to_thread(self.server.stop, number)
            await asyncio.to_thread(self._running.close)

    async def watch_server(self):
        """Start it again if it ends by itself, as a supervisor would; that breaks a law."""
        while not await self.over_within(1):
            async with self._changing:
                code = self.server.process.poll()
                if self._is_meant_to_run and code is not None:
                    text = f"by itself, with exit code {code}, at commit {self.ledger.committed}"
                    self.ledger.break_law("server", LawBrokenError("ended", text))
                    await asyncio.to_thread(self._running.close)
                    await self._start()

    async def close(self):
        """End what is still open."""
        for sql in self._idle:
            await sql.close()
        self._running.close()

    def token(self, user):
        """Return the token of a user; None is the service role."""
        return self._kept[user]

    @property
    def path(self):
        """Where sockets are opened."""
        return f"/realtime/v1/websocket?vsn=2.0.0&apikey={self._kept['anon']}"

    def note_memory(self):
        """Note the memory that the server has now."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.server.process.pid}/status").read_text()
            lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            if "VmRSS" in lines:
                self.memory_mb.append(round(int(lines["VmRSS"].split()[0]) / 1024))

    # --- the database -----------------------------------------------------------------------------

    async def connect(self, *, deadline_s=DEADLINE_S):
        """Return a connection; PostgreSQL that is down is waited for."""

        async def connected():
            with contextlib.suppress(psycopg.OperationalError):
                return await psycopg.AsyncConnection.connect(self.database_url, autocommit=True)
            return await self.over_within(0.2) and None

        return await wait_until(connected, "PostgreSQL to be there", deadline_s=deadline_s)

    async def execute(self, *statements):
        """Run statements, each in its own transaction."""
        async with await self.connect() as sql:
            for statement in statements:
                await sql.execute(statement)

    def _give_to_plain_owner(self):
        name = self.database_url.rsplit("/", 1)[1]
        with psycopg.connect(self.database_url, autocommit=True) as sql:
            sql.execute(f"create role {PLAIN_OWNER} login createrole replication")
            sql.execute(f"alter database {name} owner to {PLAIN_OWNER}")
        return self.cluster.url(name, PLAIN_OWNER)

    async def make_tables(self, chance):
        """Make tables and first memberships."""
        async with await psycopg.AsyncConnection.connect(self.served_url, autocommit=True) as sql:
            await sql.execute(SCHEMA)
        members = {(user, org) for user in USERS for org in chance.sample(range(3, 30), 3)}
        async with await self.connect() as sql, sql.cursor() as cursor:
            await cursor.executemany("insert into members values (%s, %s)", sorted(members))
        self.ledger.rights_from(0, members, "members")

    async def load(self, view):
        """Return the rows that SELECT shows, and the number of the last commit among them."""

        async def loaded():
            if self.is_over.is_set():
                raise asyncio.CancelledError
            sql = self._idle.pop() if self._idle else await self.connect()
            try:
                found = await _load(sql, view)
            except psycopg.OperationalError:
                await sql.close()
                return await self.over_within(0.2) and None
            self._idle.append(sql)
            return found

        async with self._loading:
            return await wait_until(loaded, "a SELECT to succeed", deadline_s=DEADLINE_S)


async def _load(sql, view):
    async with sql.transaction():
        await sql.execute("set transaction isolation level repeatable read, read only")
        row = await (await sql.execute("select coalesce(max(n), 0) from commits")).fetchone()
        role = "service_role" if view.user is None else "authenticated"
        claims = json.dumps({"role": role, "sub": view.user})
        await sql.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
            (role, claims),
        )
        rows = {}
        for part in view.parts:
            found = await (await sql.execute(part.query(view.columns(part.table)))).fetchall()
            rows[part.table] = {shown["id"]: shown for (shown,) in found}
    return rows, row[0]


def now_s():
    """Return the time by which everything here is measured."""
    return time.monotonic()
