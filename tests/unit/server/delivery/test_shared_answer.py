"""Everybody gets an answer asked for after his call, and few questions are asked."""

import asyncio

import pytest

from heliograph.errors import UnavailableError
from heliograph.server.delivery.shared_answer import SharedAnswer

pytestmark = pytest.mark.asyncio


class Database:
    """Answers with the number of the question, when it may."""

    def __init__(self):
        self.asked = 0
        self.gate = asyncio.Event()
        self.fails = False

    async def ask(self):
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.fails:
            raise UnavailableError("gone")
        return number

    async def until_asked(self, count):
        async with asyncio.timeout(5):
            while self.asked < count:
                await asyncio.sleep(0)

    def open(self):
        """Let what was asked be answered, and what is asked next wait."""
        gate, self.gate = self.gate, asyncio.Event()
        gate.set()


async def test_all_who_ask_before_a_question_is_begun_share_its_answer():
    database = Database()
    shared = SharedAnswer(database.ask)
    tasks = [asyncio.create_task(shared.get()) for _ in range(1_000)]
    await database.until_asked(1)
    database.gate.set()
    assert await asyncio.gather(*tasks) == [1] + [2] * 999


async def test_nobody_gets_an_answer_that_was_asked_for_before_his_call():
    database = Database()
    shared = SharedAnswer(database.ask)
    first = asyncio.create_task(shared.get())
    await database.until_asked(1)
    late = asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    database.gate.set()
    assert (await first, await late, await shared.get()) == (1, 2, 3)


async def test_a_failure_is_told_to_all_who_waited_for_it_and_to_nobody_later():
    database = Database()
    database.fails = True
    shared = SharedAnswer(database.ask)
    tasks = [asyncio.create_task(shared.get()) for _ in range(3)]
    await database.until_asked(1)
    database.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [UnavailableError] * 3
    assert database.asked == 2
    database.fails = False
    assert await shared.get() == 3


async def test_who_is_cut_off_while_he_asks_leaves_the_question_to_the_next():
    database = Database()
    shared = SharedAnswer(database.ask)
    first, second, third = (asyncio.create_task(shared.get()) for _ in range(3))
    await database.until_asked(1)
    database.open()
    await database.until_asked(2)
    second.cancel()
    database.gate.set()
    assert (await first, await third) == (1, 3)
