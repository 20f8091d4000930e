import asyncio

import pytest

from heliograph.limits import FAIR_GATE_HALF_LIFE_S, FAIR_GATE_KEYS_MAX
from heliograph.postgres.fair_gate import FairGate

pytestmark = pytest.mark.asyncio


class Bench:
    """One gate, its clock, and who was let in."""

    def __init__(self, places=1):
        self.now_s = 100.0
        self.gate = FairGate(places, lambda: self.now_s)
        self.entered = []
        self.leave = {}

    async def work(self, user, part, name):
        async with self.gate.place(user, part):
            self.entered.append(name)
            await self.leave[name].wait()

    async def ask(self, user, part="", name=None):
        name = name or f"{user}{part}"
        self.leave[name] = asyncio.Event()
        task = asyncio.create_task(self.work(user, part, name))
        await turn()
        return task

    async def end(self, name, took_s=0.0):
        self.now_s += took_s
        self.leave[name].set()
        await turn()


async def turn():
    for _ in range(5):
        await asyncio.sleep(0)


async def finish(*tasks):
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)


@pytest.mark.security
async def test_who_asks_for_much_has_others_wait_for_one_of_it_only():
    bench = Bench()
    tasks = [await bench.ask("eve", number) for number in range(50)]
    tasks.append(await bench.ask("alice"))
    await bench.end("eve0", took_s=1.0)
    assert bench.entered == ["eve0", "alice"]
    for name in ("alice", *(f"eve{number}" for number in range(1, 50))):
        await bench.end(name)
    await finish(*tasks)


async def test_parts_of_one_user_are_fair_to_each_other():
    bench = Bench()
    first = await bench.ask("anon", "slow")
    again = await bench.ask("anon", "slow", name="again")
    other = await bench.ask("anon", "quick")
    await bench.end("anonslow", took_s=1.0)
    assert bench.entered == ["anonslow", "anonquick"]
    for name in ("anonquick", "again"):
        await bench.end(name)
    await finish(first, again, other)


async def test_who_used_little_or_long_ago_waits_in_order_of_arrival():
    bench = Bench()
    before = await bench.ask("bob", name="before")
    await bench.end("before", took_s=2.0)
    bench.now_s += 10 * FAIR_GATE_HALF_LIFE_S
    holder = await bench.ask("eve")
    bob, alice = await bench.ask("bob"), await bench.ask("alice")
    await bench.end("eve")
    assert bench.entered == ["before", "eve", "bob"]
    for name in ("bob", "alice"):
        await bench.end(name)
    await finish(before, holder, bob, alice)


async def test_places_are_neither_lost_nor_made_by_who_is_cancelled():
    bench = Bench(places=2)
    holders = [await bench.ask("a"), await bench.ask("b")]
    waiting, given, last = await bench.ask("c"), await bench.ask("d"), await bench.ask("e")
    waiting.cancel()
    await turn()
    bench.leave["a"].set()
    while "d" not in bench.entered and given not in asyncio.all_tasks():
        await asyncio.sleep(0)
    await turn()
    assert bench.entered == ["a", "b", "d"]
    given.cancel()
    await turn()
    assert bench.entered == ["a", "b", "d", "e"]
    assert bench.gate._free == 0
    for name in "be":
        await bench.end(name)
    await finish(*holders, last)
    assert bench.gate._free == 2


async def test_who_is_cancelled_just_when_his_turn_comes_passes_it_on():
    bench = Bench()
    holder = await bench.ask("a")
    chosen, last = await bench.ask("b"), await bench.ask("c")
    bench.gate._hand_on()
    chosen.cancel()
    await turn()
    assert bench.entered == ["a", "c"]
    bench.gate._free -= 1
    for name in "ac":
        await bench.end(name)
    await finish(holder, last)


async def test_of_too_many_users_those_who_used_most_are_remembered():
    bench = Bench()
    for number in range(FAIR_GATE_KEYS_MAX):
        async with bench.gate.place(number, ""):
            bench.now_s += 1.0 if number % 100 == 0 else 0.001
    assert len(bench.gate._uses) <= FAIR_GATE_KEYS_MAX
    assert bench.gate._used_s(hash(FAIR_GATE_KEYS_MAX - 100)) > 0.5
