"""A whole run: who follows what, and how long."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from fixtures.postgres import binaries_of, run_test_cluster
from soak.clients import Client, Cutter, Plan, read_slowly
from soak.faults import Faults, stay_away
from soak.keeper import ByKey
from soak.ledger import Ledger
from soak.official import OfficialClient
from soak.rounds import settle
from soak.schema import USERS, Shown, View
from soak.world import World, now_s
from soak.writers import Pace, RightsWriter, Writer

#: PostgreSQL finds out sooner that writers wait for one another.
SETTINGS = {"deadlock_timeout": "100ms"}

NOTES, TASKS, THINGS = Shown("notes"), Shown("tasks"), Shown("things")
ALL = (NOTES, TASKS, THINGS)
MANY = Shown("notes", "org", tuple(range(10)))


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        seed: Of everything that is drawn.
        duration_s: Seconds of writing.
        rows_per_s: Row changes a second on average.
        cuts_per_s: Cuts a second.
        fault_pause_s: Seconds between two faults on average, when everything has recovered.
        round_s: Seconds between two settled rounds.
        ring_transactions: What the ring holds.
        clients: Raw clients, at the most.
        is_plain: Whether the server is a plain owner of the database: no event triggers.
    """

    seed: int
    duration_s: float
    rows_per_s: float = 900.0
    cuts_per_s: float = 7.5
    fault_pause_s: float = 3.0
    round_s: float = 45.0
    ring_transactions: int = 3_000
    clients: int = 50
    is_plain: bool = False


def plans():
    """Return the raw clients: roles, users, filters, tables, habits."""
    found = [
        Plan("everything", View(None, ALL)),
        Plan("much-slow", View(None, (MANY, TASKS)), is_slow=True),
        Plan("much-stock", View(None, (MANY, THINGS)), keeps_positions=False),
        Plan("by-key", View(None, (MANY, THINGS)), keeper=ByKey),
        Plan("by-key-user", View(USERS[8], (NOTES, TASKS)), keeper=ByKey),
    ]
    for number, user in enumerate(USERS):
        name = f"user{number}"
        org = Shown("notes", "org", (3 * number % 30,))
        some = Shown("notes", "org", tuple(range(number, 30, 4)))
        found += [
            Plan(f"{name}-notes-tasks", View(user, (NOTES, TASKS)), is_slow=number == 1),
            Plan(f"{name}-notes-of-some", View(user, (some,)), is_absent=number == 2),
            Plan(f"{name}-tasks", View(user, (TASKS,)), keeps_positions=number % 3 > 0),
            Plan(
                f"service-notes-{number}",
                View(None, (org,)),
                is_absent=number == 3,
                is_slow=number == 4,
                keeps_positions=number != 5,
            ),
        ]
    for number in range(7):
        few = Shown("things", "id", tuple(range(number * 40, number * 40 + 60)))
        user = None if number % 2 else USERS[number]
        org = Shown("notes", "org", (number, number + 10))
        found.append(Plan(f"things-{number}", View(user, (few, org))))
    return found


def official_plans():
    """Return those of the official client within our helper."""
    return [
        Plan("official-service", View(None, (Shown("notes", "org", (5, 15, 25)), THINGS))),
        Plan("official-user6", View(USERS[6], (NOTES, TASKS))),
        Plan("official-user7", View(USERS[7], (TASKS,))),
    ]


@dataclass
class Result:
    """What became of a run: what `soak.summary` is made from.

    Attributes:
        behind: By how many commits the last one of the prompt clients is behind.
    """

    scale: Scale
    ledger: Ledger
    folder: Path
    memory_mb: list
    clients: int
    elapsed_s: float
    behind: int


@contextlib.asynccontextmanager
async def populated(scale, folder):
    """Yield a world with tables, a server, clients who have begun, and all that disturbs them."""
    with run_test_cluster(binaries_of(18), SETTINGS) as cluster:
        ledger = Ledger(scale.ring_transactions, is_plain=scale.is_plain)
        world = World(cluster, folder, ledger, scale.seed, is_plain=scale.is_plain)
        try:
            await world.start_server()
            await world.make_tables(world.chance_of("members"))
            clients = [Client(world, plan) for plan in _some(plans(), scale.clients)]
            clients += [OfficialClient(world, plan) for plan in official_plans()]
            world.clients = clients
            yield world, clients
        finally:
            await world.close()


def _some(all_plans, count):
    """Return so many of them, those with habits among them."""
    step = max(1, len(all_plans) // count)
    return all_plans[:5] + all_plans[5::step] if step > 1 else all_plans


async def run(scale, folder, *, script=(), report=None):
    """Run until the time is over, or the script of faults is done.

    Args:
        scale: How much.
        folder: For logs and reports; it must exist.
        script: Faults to do one after the other, instead of drawn ones.
        report: Called with the `Result` so far once a minute.
    """
    began_s = now_s()
    async with populated(scale, folder) as (world, clients):

        def result():
            return Result(
                scale=scale,
                ledger=world.ledger,
                folder=folder,
                memory_mb=world.memory_mb,
                clients=len(clients),
                elapsed_s=now_s() - began_s,
                behind=world.behind(),
            )

        rights = RightsWriter(world)
        faults = Faults(world, rights, clients)
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
            try:
                await _disturb(world, group, clients, rights)
                group.create_task(world.watch_server())
                pace = Pace(scale.rows_per_s)
                for number in range(4):
                    group.create_task(Writer(world, number, pace).run())
                group.create_task(Cutter(world, clients, scale.cuts_per_s).run())
                if report is not None:
                    group.create_task(_report(world, lambda: report(result())))
                if script:
                    await _follow_script(world, faults, script, clients, rights)
                else:
                    group.create_task(faults.run(scale.fault_pause_s))
                    await _settle_until(world, began_s + scale.duration_s, scale, clients, rights)
            finally:
                world.is_over.set()
                for client in clients:
                    client.end()
        return result()


async def _disturb(world, group, clients, rights):
    """Wait until everybody has loaded; then let some read slowly and some stay away."""
    await rights.number_with("select 1")
    await settle(world, rights, clients)
    world.note_memory()
    for client in clients:
        if client.plan.is_slow:
            group.create_task(read_slowly(world, client))
        if client.plan.is_absent:
            group.create_task(stay_away(world, client))


async def _report(world, report, report_s=60.0):
    while not await world.over_within(report_s):
        report()


async def _settle_until(world, end_s, scale, clients, rights):
    while now_s() < end_s:
        await world.over_within(min(scale.round_s, max(0.1, end_s - now_s())))
        await settle(world, rights, clients)


async def _follow_script(world, faults, script, clients, rights):
    for names in script:
        for name in names:
            await faults.break_by(name)
        await settle(world, rights, clients)
