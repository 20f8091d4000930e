"""Pools whose connections come back whatever becomes of those who borrowed them."""

from collections.abc import Awaitable, Callable

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool


def make_pool(
    conninfo: str,
    *,
    application_name: str,
    sizes: tuple[int, int],
    wait_s: float,
    configure: Callable[[AsyncConnection], Awaitable[None]],
) -> AsyncConnectionPool:
    """Make a pool that is not open yet.

    Args:
        conninfo: Connection string.
        application_name: What ``pg_stat_activity`` shows.
        sizes: Connections kept open at least, and at most.
        wait_s: Seconds that a caller waits for a connection before `psycopg_pool.PoolTimeout`.
        configure: Called with each new connection.
    """
    min_size, max_size = sizes
    return AsyncConnectionPool(
        conninfo,
        min_size=min_size,
        max_size=max_size,
        open=False,
        name=application_name,
        timeout=wait_s,
        configure=configure,
        reset=_as_it_is,
        kwargs={"autocommit": True, "application_name": application_name},
    )


async def _as_it_is(_connection: AsyncConnection) -> None:
    """Leave a connection as it came back: the pool has rolled back what was open in it.

    With a function to call, the pool takes connections back in a task of its own. Without one
    (psycopg_pool 3.3) the borrower waits for the pool's lock: if it is cancelled there, and a
    client that leaves cancels its join, the connection counts as lent for ever.
    """
