"""Clients that keep positions, cut, crashed under and brought back; see `ResumingSimulation`."""

import asyncio
import os

import pytest

from fixtures.delivery_simulation import small_bounds  # noqa: F401 - a fixture
from fixtures.resuming_simulation import (  # noqa: F401 - one is a fixture
    ResumingSimulation,
    marks_within_transactions,
)

pytestmark = pytest.mark.asyncio

SEEDS = int(os.environ.get("RESUMING_SIMULATION_SEEDS", "300" if "CI" in os.environ else "60"))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whoever_comes_back_goes_on_where_it_was(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = ResumingSimulation(seed, tasks, crashes=False)
        await simulation.run(loses=False)
        for client in simulation.clients:
            simulation.check(client)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_crashes_and_losses_are_told_before_anything_later(seed):
    async with asyncio.TaskGroup() as tasks:
        simulation = ResumingSimulation(seed, tasks, crashes=True)
        await simulation.run(loses=True)
        for client in simulation.clients:
            simulation.check(client)


async def test_a_bug_in_the_marks_of_one_channel_ends_that_channel_only():
    async with asyncio.TaskGroup() as tasks:
        simulation = ResumingSimulation(0, tasks, crashes=False)
        await simulation.join("open 1")
        await simulation.join("open 1")
        bad, good = simulation.clients
        ended = []
        bad.outlet.send_system = None
        bad.outlet.close_failed = ended.append
        simulation.commit(most_rows=1)
        simulation.end_turn()
        assert len(ended) == 1
        assert bad.channel.is_closed
        assert good.outlet.told == [(10, 0)]
        assert simulation.marks.parts.supervisor.failures == 1
