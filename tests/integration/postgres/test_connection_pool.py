"""A caller who is cancelled at any moment must not take a connection with him."""

import asyncio

import psycopg
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


@pytest.mark.parametrize("kind", [AdminDatabase, Judge])
async def test_connections_that_postgresql_has_ended_are_not_lent(postgres_url, kind):
    database = kind(postgres_url, connections_max=3)
    await database.open()
    pool = database._pool
    async with pool.connection() as first, pool.connection() as second, pool.connection() as third:
        pids = [connection.info.backend_pid for connection in (first, second, third)]
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql:
        for pid in pids:
            # Waits until the process is gone, so its last words are on their way.
            await sql.execute("select pg_terminate_backend(%s, 10000)", (pid,))
        for _ in range(4):
            async with pool.connection(timeout=5) as connection:
                assert connection.info.backend_pid not in pids
                await connection.execute("select 1")
    await database.close()


async def test_a_closed_connection_is_not_lent(postgres_url):
    database = AdminDatabase(postgres_url, connections_max=1)
    await database.open()
    async with database._pool.connection() as connection:
        pass
    await connection.close()
    async with database._pool.connection(timeout=5) as other:
        await other.execute("select 1")
    await database.close()
