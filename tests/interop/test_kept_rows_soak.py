"""Clients that keep rows end with what SELECT shows them, whatever happened on the way.

Six users keep the rows that they are told, load them anew on ``resync`` and sometimes stop reading.
Meanwhile rows change by the hundreds and thousands, swap their keys, are truncated; tables and
memberships change. When the writers are done, marks are written until each client is told one as
a change; what it then keeps is compared with what PostgreSQL shows it.
"""

import asyncio
import contextlib
import json
import random

import psycopg
import pytest

from fixtures.raw_client import RawClient, connected, table

pytestmark = [pytest.mark.soak, pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

USERS = [f"00000000-0000-0000-0000-00000000000{digit}" for digit in range(1, 7)]
ORGS = 8
ROWS = 10_000

#: Transactions of each writer while rights change, and again while they do not.
TRANSACTIONS = 40

#: Seconds within which every client must be told a mark once the writers are done. Six users have
#: both versions of every row judged: one row changed is twelve judgements.
SETTLE_S = 240.0

SCHEMA = f"""
create table members (user_id uuid, org int, primary key (user_id, org));
create table notes (id int primary key deferrable, org int, body text);
alter table notes replica identity full;
alter table members enable row level security;
alter table notes enable row level security;
create policy own on members for select to authenticated using (user_id = (select auth.uid()));
create policy of_org on notes for select to authenticated
  using (id < 0 or exists (select from members m where m.org = notes.org));
grant select on members, notes to authenticated;
alter publication supabase_realtime add table notes;
insert into notes select n, n % {ORGS}, 'first' from generate_series(1, {ROWS}) n;
"""


class KeepingClient(RawClient):
    """Keeps the rows that it is told, by id, and loads them anew after ``resync``."""

    def begin(self, user, sql):
        self.user, self.sql = user, sql
        self.rows = {}
        self.is_stale = True
        self.last_mark = 0
        self.resyncs = 0
        self.reading_on = asyncio.Event()
        self.reading_on.set()

    async def read(self):
        async for text in self.socket:
            await self.reading_on.wait()
            frame = json.loads(text)
            if frame[3] == "postgres_changes":
                await self._keep(frame[4]["data"])
            else:
                self.frames.append(frame)
                if frame[3] == "system" and frame[4]["status"] == "error":
                    self.resyncs += 1
                    self.is_stale = True
            self._news.set()

    async def _keep(self, change):
        if self.is_stale:
            self.is_stale = False
            self.rows = await visible_rows(self.sql, self.user)
        old, new = change.get("old_record"), change.get("record")
        if old:
            self.rows.pop(old["id"], None)
        if new:
            self.rows[new["id"]] = (new["org"], new["body"])
            self.last_mark = min(self.last_mark, new["id"])


async def visible_rows(sql, user):
    """Return what PostgreSQL shows a user."""
    async with sql.transaction():
        claims = json.dumps({"role": "authenticated", "sub": user})
        await sql.execute(
            "select set_config('role', 'authenticated', true),"
            " set_config('request.jwt.claims', %s, true)",
            (claims,),
        )
        rows = await (await sql.execute("select id, org, body from notes")).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


async def connect(server):
    return await psycopg.AsyncConnection.connect(server.database_url, autocommit=True)


@contextlib.asynccontextmanager
async def keeping(server):
    """A client for each user, joined and reading."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for user in USERS:
            sql = await stack.enter_async_context(await connect(server))
            client = await stack.enter_async_context(connected(server, kind=KeepingClient))
            client.begin(user, sql)
            await client.join("k", server.token(user), table("notes"))
            clients.append(client)
        yield clients


def without_marks(rows):
    return {number: row for number, row in rows.items() if number > 0}


def update(chance):
    first, count = chance.randrange(1, ROWS), chance.choice((200, 500, 1_000, 3_000))
    return (
        f"update notes set body = repeat('b', 300) || '{chance.random()}',"
        f" org = (org + {chance.randrange(2)}) % {ORGS}"
        f" where id between {first} and {first + count}"
    )


def swap_keys(chance):
    first = chance.randrange(1, ROWS)
    last = min(ROWS, first + chance.randrange(2, 300))
    return f"update notes set id = {first + last} - id where id between {first} and {last}"


def delete_and_insert(chance):
    first, count = chance.randrange(1, ROWS), chance.choice((1, 50, 500))
    return (
        f"delete from notes where id between {first} and {first + count};"
        f" insert into notes select n, n % {ORGS}, 'again'"
        f" from generate_series({first}, {first + count}) n"
    )


def one_row(chance):
    return f"update notes set body = 'one{chance.random()}' where id = {chance.randrange(1, ROWS)}"


def empty(chance):
    return (
        "truncate notes;"
        f" insert into notes select n, n % {ORGS}, 'new'"
        f" from generate_series(1, {chance.choice((100, ROWS))}) n"
    )


def membership(chance):
    user, org = chance.choice(USERS), chance.randrange(ORGS)
    if chance.random() < 0.6:
        return f"insert into members values ('{user}', {org}) on conflict do nothing"
    return f"delete from members where user_id = '{user}' and org = {org}"


def definition(chance):
    column = f"extra{chance.randrange(3)}"
    if chance.random() < 0.5:
        return f"alter table notes add column if not exists {column} int"
    return f"alter table notes drop column if exists {column}"


ROLLED_BACK = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
)
ROW_CHANGES = [update, swap_keys, delete_and_insert, one_row, one_row, one_row]
RIGHTS_CHANGES = [membership, membership, definition, empty]


async def write(server, chance, changes):
    async with await connect(server) as sql:
        for _ in range(TRANSACTIONS):
            # Writers meet one another; a change that was rolled back is none.
            with contextlib.suppress(*ROLLED_BACK):
                async with sql.transaction():
                    await sql.execute(chance.choice(changes)(chance))


async def stop_and_go(clients, chance, is_over):
    """Have clients stop reading now and then."""
    while not is_over.is_set():
        client = chance.choice(clients)
        client.reading_on.clear()
        client.socket.transport.pause_reading()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), chance.uniform(0, 2))
        client.socket.transport.resume_reading()
        client.reading_on.set()


async def tell_marks(server, clients):
    """Write marks until each client was told one of these as a change."""
    async with await connect(server) as sql, asyncio.timeout(SETTLE_S):
        await sql.execute("delete from notes where id < 0")
        for client in clients:
            client.last_mark = 0
        mark = -1
        behind = clients
        while behind:
            await sql.execute("insert into notes values (%s, 0, 'mark')", (mark,))
            for client in behind:
                with contextlib.suppress(TimeoutError):
                    await client.until(lambda client=client: client.last_mark < 0, 2)
            behind = [client for client in clients if not client.last_mark]
            mark -= 1


@pytest.mark.parametrize("seed", range(1, 6))
async def test_rows_that_were_kept_are_those_that_select_shows(server, seed):
    chance = random.Random(seed)
    server.sql(SCHEMA)
    server.sql(
        *(f"insert into members values ('{u}', {o})" for o, u in enumerate(USERS)),
    )
    async with keeping(server) as clients:
        for changes in (ROW_CHANGES * 3 + RIGHTS_CHANGES, ROW_CHANGES):
            is_over = asyncio.Event()
            pausing = asyncio.create_task(stop_and_go(clients, chance, is_over))
            writers = [random.Random(f"{seed} {number}") for number in range(3)]
            await asyncio.gather(*(write(server, writer, changes) for writer in writers))
            is_over.set()
            await pausing
            await tell_marks(server, clients)
            for client in clients:
                shown = await visible_rows(client.sql, client.user)
                assert without_marks(client.rows) == without_marks(shown)
