"""Everything that a channel is owed, each change once and in order: simulated with seeds."""

import asyncio
import os

import pytest

from fixtures.delivery_simulation import Resync, Simulation, small_bounds  # noqa: F401 - a fixture

pytestmark = pytest.mark.asyncio

SEEDS = int(os.environ.get("DELIVERY_SIMULATION_SEEDS", "15"))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_channel_is_told_all_it_is_owed_once_and_in_order(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = Simulation(seed, tasks)
        await simulation.run(loses=False)
        for client in simulation.clients:
            assert not [told for told in client.outlet.told if isinstance(told, Resync)]
            simulation.check(client)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_what_is_lost_is_said_before_anything_later_is_told(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = Simulation(seed, tasks)
        await simulation.run(loses=True)
        for client in simulation.clients:
            simulation.check(client)


async def test_who_comes_to_a_lane_that_is_behind_and_lags_no_more_is_told_nothing_older():
    async with asyncio.TaskGroup() as tasks:
        simulation = Simulation(0, tasks)
        await simulation.join("judged 1")
        simulation.judge.gate.clear()
        simulation.commit(most_rows=1)
        await simulation.join("open 1")
        simulation.commit(most_rows=1)
        client = simulation.clients[1]
        simulation.replace_at(client, "judged 1")
        client.channel.resync("rights_changed")
        simulation.commit(most_rows=1)
        simulation.judge.gate.set()
        while not simulation.is_at_rest():
            await asyncio.sleep(0)
        assert client.outlet.told == [(20, 0), Resync(20), (30, 0)]
