"""Reader, change log, matching and connections as one world; see `StreamSimulation`."""

import asyncio
import os

import pytest

from fixtures.delivery_simulation import small_bounds  # noqa: F401 - a fixture
from fixtures.resuming_simulation import marks_within_transactions  # noqa: F401 - a fixture
from fixtures.stream_simulation import StreamSimulation, is_load

pytestmark = pytest.mark.asyncio

SEEDS = int(os.environ.get("STREAM_SIMULATION_SEEDS", "700" if "CI" in os.environ else "60"))


async def simulate(seed, *, loses):
    async with asyncio.TaskGroup() as tasks:
        simulation = StreamSimulation(seed, tasks, crashes=loses)
        await simulation.run(loses=loses)
        for client in simulation.clients:
            simulation.check(client)
    return simulation


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_duplicates_and_changes_of_rights_are_told_as_what_they_are(seed):
    await simulate(seed, loses=False)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_so_they_are_through_crashes_and_losses(seed):
    await simulate(seed, loses=True)


async def test_the_worlds_are_worth_it():
    worlds = [await simulate(seed, loses=True) for seed in range(10)]
    clients = [client for world in worlds for client in world.clients]
    assert sum(world.duplicates for world in worlds) > 50
    assert sum(len(world.rights) for world in worlds) > 50
    assert sum(sum(map(is_load, client.outlet.told)) for client in clients) > 100
    assert sum(len(client.outlet.stands) for client in clients) > 600
