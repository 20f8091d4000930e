"""A caller who is cancelled at any moment must not take a connection with him."""

import asyncio

import pytest

from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.judge import Judge

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio, pytest.mark.security]


@pytest.mark.parametrize("kind", [AdminDatabase, Judge])
async def test_who_is_cancelled_while_he_gives_a_connection_back_does_not_keep_it(
    postgres_url, kind
):
    database = kind(postgres_url, connections_max=1)
    await database.open()
    pool = database._pool
    borrowed, may_leave = asyncio.Event(), asyncio.Event()

    async def borrow():
        async with pool.connection():
            borrowed.set()
            await may_leave.wait()

    borrower = asyncio.create_task(borrow())
    await borrowed.wait()
    # Whoever gives back waits for this lock, at the least when others are giving back too.
    async with pool._lock:
        may_leave.set()
        for _ in range(10):
            await asyncio.sleep(0)
        borrower.cancel()
        await asyncio.wait([borrower])
    async with pool.connection(timeout=5) as connection:
        cursor = await connection.execute("select 1")
        assert await cursor.fetchone() == (1,)
    await database.close()


@pytest.mark.parametrize("kind", [AdminDatabase, Judge])
async def test_a_pool_outlives_callers_who_leave_at_any_moment(postgres_url, kind):
    database = kind(postgres_url, connections_max=2)
    await database.open()

    async def work():
        async with database._pool.connection() as connection:
            await connection.execute("select 1")

    for _ in range(100):
        working = [asyncio.create_task(work()) for _ in range(12)]
        loop = asyncio.get_running_loop()
        for number, task in enumerate(working):
            loop.call_later(number * 0.0005, task.cancel)
        await asyncio.gather(*working, return_exceptions=True)
    async with database._pool.connection(timeout=5), database._pool.connection(timeout=5):
        pass
    await database.close()
