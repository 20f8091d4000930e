"""A trial that passed counts for a moment, and for the same question."""

import asyncio

import pytest

from heliograph import limits
from heliograph.server.delivery.recent_trials import RecentTrials

pytestmark = pytest.mark.asyncio


class Clock:
    now_s = 100.0

    def monotonic_s(self):
        return self.now_s


async def tried(trials, question, *, passes=True):
    """Do what a join does; tell whether it asked PostgreSQL."""
    async with trials.trial(question) as trial:
        if trial.is_needed:
            await asyncio.sleep(0)
            trial.has_passed = passes
        return trial.is_needed


async def test_of_many_who_ask_the_same_at_once_one_asks_postgresql():
    trials = RecentTrials(Clock())
    found = await asyncio.gather(*(tried(trials, "orders") for _ in range(100)))
    assert sum(found) == 1


async def test_what_has_not_passed_is_tried_by_everybody():
    trials = RecentTrials(Clock())
    assert [await tried(trials, "orders", passes=False) for _ in range(3)] == [True] * 3


async def test_another_question_is_tried_for_itself_and_without_waiting():
    trials = RecentTrials(Clock())
    async with trials.trial("orders"), asyncio.timeout(5):
        assert await tried(trials, "invoices")


async def test_after_a_moment_it_is_tried_again():
    clock = Clock()
    trials = RecentTrials(clock)
    assert await tried(trials, "orders")
    clock.now_s += limits.TRIAL_AGE_S_MAX / 2
    assert not await tried(trials, "orders")
    assert await tried(trials, "invoices")
    clock.now_s += limits.TRIAL_AGE_S_MAX / 2
    assert await tried(trials, "orders")
    assert not await tried(trials, "invoices")


async def test_a_trial_that_was_cut_off_has_not_passed():
    trials = RecentTrials(Clock())
    with pytest.raises(ZeroDivisionError):
        async with trials.trial("orders") as trial:
            trial.has_passed = True
            raise ZeroDivisionError
    assert await tried(trials, "orders")
