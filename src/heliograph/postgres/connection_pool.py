"""Pools whose connections come back whatever becomes of those who borrowed them, and work."""

import select
from collections.abc import Awaitable, Callable
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from heliograph import limits

#: A role or a database may set timeouts for its applications; our sessions bound their work
#: themselves. Nor do they use what is in schema public: an operator there, of an extension or of
#: somebody's, may fit better than PostgreSQL's own.
_OF_OUR_OWN: Final = """
set search_path = '';
select set_config(name, '0', false) from pg_catalog.pg_settings
 where name in ('statement_timeout', 'lock_timeout', 'idle_session_timeout', 'transaction_timeout',
                'idle_in_transaction_session_timeout')
"""


class _WorkingPool(AsyncConnectionPool):
    """Lends no connection that PostgreSQL has ended: a restart ends all that lie here idle."""

    async def getconn(self, timeout: float | None = None) -> AsyncConnection:  # noqa: ASYNC109 - the pool's own signature
        """Lend a connection that is silent; errors as of the pool."""
        while True:
            connection = await super().getconn(timeout)
            if _is_silent(connection):
                return connection
            # Nothing suspends here, so nobody can be cancelled between the two.
            await connection.close()
            await self.putconn(connection)


def _is_silent(connection: AsyncConnection) -> bool:
    """Tell whether nothing came while the connection was idle.

    What comes is the end of it, or its announcement; seldom a changed setting, and then a new
    connection does as well. Asking the socket costs a hundredth of asking PostgreSQL.
    """
    poll = select.poll()
    try:
        poll.register(connection.fileno(), select.POLLIN)
    except psycopg.OperationalError:
        return False
    return not poll.poll(0)


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
        configure: Called with each new connection, in which no timeout holds and
            the search_path is empty.
    """

    async def begin(connection: AsyncConnection) -> None:
        await connection.execute(_OF_OUR_OWN)
        await configure(connection)

    min_size, max_size = sizes
    return _WorkingPool(
        conninfo,
        min_size=min_size,
        max_size=max_size,
        open=False,
        name=application_name,
        timeout=wait_s,
        configure=begin,
        reset=_as_it_is,
        # The pool waits twice as long after each refusal. Given up early, it tries at once when
        # somebody asks.
        reconnect_timeout=limits.POOL_RECONNECT_S,
        kwargs={
            "autocommit": True,
            "application_name": application_name,
            # The database's own encoding otherwise, in which not every statement of ours is text.
            "client_encoding": "UTF8",
        },
    )


async def _as_it_is(_connection: AsyncConnection) -> None:
    """Leave a connection as it came back: the pool has rolled back what was open in it.

    With a function to call, the pool takes connections back in a task of its own. Without one
    (psycopg_pool 3.3) the borrower waits for the pool's lock: if it is cancelled there, and a
    client that leaves cancels its join, the connection counts as lent for ever.
    """
