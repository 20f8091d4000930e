"""Everything that is broken on purpose, one thing after the other, sometimes two at once."""

import asyncio
import contextlib
import datetime as dt
import os
import signal

import psycopg

from fixtures.server_process import slot_of
from fixtures.waiting import wait_until
from fixtures.without_reader import END_STREAM, without_reader
from soak.ledger import LawBrokenError
from soak.world import DEADLINE_S, now_s

ENDED_JUDGES = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and usename like 'heliograph_judge%'"
)


#: Seconds within which a publication that is changed and changed back is looked at; with slack.
UNNOTICED_S = 6.0

#: How often each is drawn, relative to the others.
WEIGHTS = {
    "membership": 10,
    "policy": 3,
    "truncate": 3,
    "publication_without_table": 2,
    "publication_made_anew": 1,
    "walsender_ended": 6,
    "judges_ended": 4,
    "server_killed": 8,
    "server_ended": 4,
    "server_stopped": 4,
    "postgres_killed": 5,
    "postgres_restarted": 3,
    "both_killed": 2,
    "slot_dropped": 2,
    "slot_dropped_without_server": 2,
    "slot_moved": 2,
    "slot_invalidated": 1,
}


class Faults:
    """Draws faults by their weights."""

    def __init__(self, world, rights, clients):
        self._world = world
        self._ledger = world.ledger
        self._rights = rights
        self._clients = clients
        self._chance = world.chance_of("faults")

    async def run(self, pause_s):
        """Break something every now and then until the end.

        Args:
            pause_s: Seconds between two of them on average, as long as everything recovers.
        """
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not await self._world.over_within(self._chance.expovariate(1 / pause_s)):
            (name,) = self._chance.choices(names, weights)
            async with self._world.gate.passing():
                await self.break_by(name, waits=self._chance.random() < 0.6)

    async def break_by(self, name, *, waits=True):
        """Do one fault; maybe wait until every prompt client has followed what was committed."""
        if self._world.is_over.is_set():
            return
        self._ledger.counts[f"fault {name}"] += 1
        with (self._world.folder / "faults.log").open("a") as file:
            file.write(
                f"{dt.datetime.now(dt.UTC):%H:%M:%S.%f} {name} at {self._ledger.committed}\n"
            )
        await getattr(self, f"_{name}")()
        if not waits:
            return
        ended_s = now_s()
        await self._rights.number_with("select 1")
        number = self._ledger.committed
        prompt = [client for client in self._clients if client.is_prompt]

        def behind():
            return [client for client in prompt if not client.has_followed(number)]

        try:
            await wait_until(
                lambda: self._world.is_over.is_set() or not behind(), deadline_s=DEADLINE_S
            )
        except AssertionError:
            text = f"{DEADLINE_S:g} s after {name}, commit {number} was not reached"
            for client in behind():
                followed = client.keeper.followed
                error = LawBrokenError("stuck", f"{text}: at {followed}")
                self._ledger.break_law(client.plan.name, error)
        else:
            self._ledger.recoveries_s[name].append(now_s() - ended_s)
            self._ledger.everybody_followed()

    # --- rights and tables ------------------------------------------------------------------------

    async def _membership(self):
        await self._rights.change_membership()

    async def _policy(self):
        await self._rights.change_policy()

    async def _truncate(self):
        await self._rights.truncate()

    async def _publication_without_table(self):
        with self._ledger.cause("publication"):
            await self._rights.number_with("alter publication supabase_realtime drop table things")
            # Without event triggers a table must be away for longer than two seconds to be missed.
            least_s = UNNOTICED_S if self._ledger.is_plain else 0
            await self._world.over_within(least_s + self._chance.uniform(0, 3))
            await self._rights.number_with("alter publication supabase_realtime add table things")

    async def _publication_made_anew(self):
        name, tables = "supabase_realtime", "commits, notes, tasks, things"
        owner = self._world.served_url.split("//")[1].split("@")[0]
        with self._ledger.cause("publication"):
            await self._world.execute(
                f"drop publication {name}; create publication {name} for table {tables};"
                f" alter publication {name} owner to {owner}"
            )

    # --- connections ------------------------------------------------------------------------------

    async def _walsender_ended(self):
        async with await self._world.connect() as sql:
            await sql.execute(END_STREAM, (slot_of(self._world.database_url),))

    async def _judges_ended(self):
        with self._ledger.cause("judges_ended"):
            await self._world.execute(ENDED_JUDGES)

    # --- processes --------------------------------------------------------------------------------

    async def _server_killed(self):
        await self._world.end_server(signal.SIGKILL)
        await self._world.over_within(self._chance.choice((0, 0, 0.5, 3)))
        await self._world.start_server()

    async def _server_ended(self):
        await self._world.end_server(signal.SIGTERM)
        await self._world.start_server()

    async def _server_stopped(self):
        with self._ledger.cause("server_stopped"):
            process = self._world.server.process
            os.kill(process.pid, signal.SIGSTOP)
            await self._world.over_within(self._chance.uniform(0.2, 4))
            os.kill(process.pid, signal.SIGCONT)

    async def _postgres_killed(self):
        with self._ledger.cause("postgres_killed"):
            await asyncio.to_thread(self._world.cluster.kill)
            await self._world.over_within(self._chance.choice((0, 0, 1, 4)))
            await asyncio.to_thread(self._world.cluster.start_again)

    async def _postgres_restarted(self):
        with self._ledger.cause("postgres_restarted"):
            await asyncio.to_thread(self._world.cluster.stop)
            await asyncio.to_thread(self._world.cluster.start_again)

    async def _both_killed(self):
        with self._ledger.cause("postgres_killed"):
            await asyncio.to_thread(self._world.cluster.kill)
            await self._world.end_server(signal.SIGKILL)
            await asyncio.to_thread(self._world.cluster.start_again)
            await self._world.start_server()

    # --- the slot ---------------------------------------------------------------------------------

    async def _slot_dropped(self):
        await self._without_reader("slot_dropped", "select pg_drop_replication_slot('{}')")

    async def _slot_moved(self):
        advance = "select pg_replication_slot_advance('{}', pg_current_wal_insert_lsn())"
        await self._without_reader("slot_moved", advance)

    async def _without_reader(self, kind, statement):
        with self._ledger.cause(kind):
            async with (
                await self._world.connect() as sql,
                without_reader(self._world.server, sql) as slot,
            ):
                await self._world.over_within(self._chance.uniform(0, 1))
                await sql.execute(statement.format(slot))
            await self._wait_reader()

    async def _slot_dropped_without_server(self):
        slot = slot_of(self._world.database_url)
        with self._ledger.cause("slot_dropped"):
            await self._world.end_server(signal.SIGKILL)
            async with await self._world.connect() as sql:

                async def is_dropped():
                    await sql.execute(END_STREAM, (slot,))
                    with contextlib.suppress(psycopg.errors.ObjectInUse):
                        await sql.execute("select pg_drop_replication_slot(%s)", (slot,))
                        return True
                    return False

                await wait_until(is_dropped, "the slot to be free")
            await self._world.start_server()

    async def _slot_invalidated(self):
        slot = slot_of(self._world.database_url)
        with self._ledger.cause("slot_invalidated"):
            async with await self._world.connect() as sql:
                await sql.execute("alter system set max_slot_wal_keep_size = '1MB'")
                await sql.execute("select pg_reload_conf()")

                async def is_lost():
                    await sql.execute("select pg_switch_wal()")
                    await sql.execute("checkpoint")
                    query = "select wal_status from pg_replication_slots where slot_name = %s"
                    row = await (await sql.execute(query, (slot,))).fetchone()
                    return row is None or row[0] == "lost"

                await wait_until(is_lost, "the slot to be lost", deadline_s=60)
                await sql.execute("alter system reset max_slot_wal_keep_size")
                await sql.execute("select pg_reload_conf()")
            await self._wait_reader()

    async def _wait_reader(self):
        """Wait until the slot is read again: what is told of its loss, is told by then."""
        slot = slot_of(self._world.database_url)

        async def is_read():
            with contextlib.suppress(psycopg.OperationalError):
                async with await self._world.connect() as sql:
                    query = "select active from pg_replication_slots where slot_name = %s"
                    row = await (await sql.execute(query, (slot,))).fetchone()
                    return row is not None and row[0]
            return False

        await wait_until(is_read, "the slot to be read", deadline_s=DEADLINE_S)


async def stay_away(world, client):
    """Keep a client away now and then for longer than the ring reaches."""
    chance = world.chance_of(f"away {client.plan.name}")
    while not await world.over_within(chance.uniform(5, 40)):
        if not world.gate.is_open:
            continue
        client.is_away = True
        if client.socket is not None:
            client.socket.abort()
        enough = world.ledger.committed + 1.1 * world.ledger.ring_transactions

        def is_long_enough(enough=enough):
            return world.ledger.committed > enough or not world.gate.is_open

        while not is_long_enough() and not world.is_over.is_set():
            await world.over_within(0.1)
        client.is_away = False
        world.ledger.counts["absences"] += 1
