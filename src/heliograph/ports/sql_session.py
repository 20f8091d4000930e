"""The seam for parts that only want to run SQL, such as the demo: one session, one at a time."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class SqlSession(Protocol):
    """One database session that runs one statement after the other.

    Each statement is a transaction of its own unless `transaction` surrounds it.
    """

    async def execute(
        self, sql: str, parameters: Sequence[object] = ()
    ) -> Sequence[Mapping[str, object]]:
        """Run SQL and return the rows of its result.

        Args:
            sql: One statement with a ``%s`` for each parameter. Without parameters it is sent as
                it is: ``%`` needs no doubling, and it may hold several statements, which then
                succeed or fail together.
            parameters: Values, always bound, never spliced into the text.

        Returns:
            One mapping of column name to value per row; empty if there is no result.

        Raises:
            UnavailableError: If the database does not answer, is shutting down, or broke the
                transaction off in favour of another one; the same call may succeed later.
            StorageError: If PostgreSQL refuses the statement.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Surround statements: committed together at the end, rolled back on any exception.

        Transactions do not nest.

        Raises:
            UnavailableError: When leaving, if the commit can not be confirmed. It may have
                happened.
            StorageError: When leaving, if PostgreSQL refuses the commit, or if a statement had
                failed and the block went on all the same: then nothing is kept.
        """
        ...


#: Opens a session of its own and closes it at the end; raises `UnavailableError` if it can not.
OpenSqlSession = Callable[[], AbstractAsyncContextManager[SqlSession]]
