"""Judging a batch that raised again in parts, until the rows that raise stand alone.

Inside the judging transaction, under a savepoint for each part and one round trip for each: one
bad row of n costs about twice the logarithm of n, and n bad rows cost n. A part that succeeds keeps
the locks that it took, which tell what it read.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, cast

import psycopg
from psycopg import AsyncConnection, AsyncPipeline

from heliograph.postgres.judge_statement import RowAnswer, RowBatch, parameters
from heliograph.postgres.row_errors import is_row_error

_SAVEPOINT: Final = "savepoint heliograph_part"
_RELEASE: Final = "release savepoint heliograph_part"
_BACK: Final = "rollback to savepoint heliograph_part"


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that was denied because judging it raised.

    Attributes:
        table_oid: Its table.
        sqlstate: Why.
    """

    table_oid: int
    sqlstate: str


@asynccontextmanager
async def one_round_trip(connection: AsyncConnection) -> AsyncGenerator[None]:
    """Send the statements of the block together; raises the first error behind the block.

    Whatever PostgreSQL skipped after an error is fetched before the pipeline ends: psycopg warns
    of everything that it finds left over.

    A statement that psycopg prepares by itself counts as prepared even when it was skipped, and
    fails ever after. So nothing in the block may be prepared that was not prepared before.
    """
    failure: psycopg.Error | None = None
    async with connection.pipeline() as pipeline:
        try:
            yield
            await pipeline.sync()
        except psycopg.Error as error:
            failure = error
            await _fetch_skipped(connection, pipeline)
    if failure is not None:
        raise failure


async def _fetch_skipped(connection: AsyncConnection, pipeline: AsyncPipeline) -> None:
    """Fetch what followed a failed statement; each of it says only that it was skipped."""
    while pipeline.result_queue and not connection.closed:
        with suppress(psycopg.Error):
            await pipeline.sync()


class JudgementInParts:
    """The parts of one judging transaction, which is open; belongs to one task."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Start without errors.

        Args:
            connection: Inside the transaction, as the role.
        """
        self._connection = connection
        self._has_failed = False
        self.errors: list[RowError] = []

    async def judge(self, batch: RowBatch) -> tuple[RowAnswer, ...]:
        """Return the answer to each row; an empty one where judging it raised.

        Raises:
            psycopg.Error: If an error was not caused by a row.
        """
        answers: list[RowAnswer] = []
        size = len(batch.rows)
        #: Rows up to here (exclusive) are known to hold one that raises, with this SQLSTATE.
        bad_end, sqlstate = 0, ""
        while len(answers) < len(batch.rows):
            place = len(answers)
            if bad_end == place + 1:
                self.errors.append(RowError(batch.statement.table_oid, sqlstate))
                answers.append(())
                bad_end, size = 0, 1
                continue
            part = batch.rows[place : place + size]
            found = await self._try(batch, part)
            if isinstance(found, psycopg.Error):
                bad_end, sqlstate = place + len(part), found.sqlstate or ""
                size = max(1, len(part) // 2)
                continue
            answers.extend(found)
            place = len(answers)
            size = max(1, (bad_end - place) // 2) if bad_end > place else size * 2
        return tuple(answers)

    async def finish(self) -> None:
        """Leave the last part behind, so that the transaction goes on."""
        if self._has_failed:
            await self._connection.execute(_BACK, prepare=False)
            self._has_failed = False

    async def _try(self, batch: RowBatch, rows: Sequence[str]) -> list[RowAnswer] | psycopg.Error:
        try:
            async with one_round_trip(self._connection):
                first = _BACK if self._has_failed else _SAVEPOINT
                await self._connection.execute(first, prepare=False)
                cursor = await self._connection.execute(
                    batch.statement.query, parameters(batch.statement, rows), prepare=False
                )
                await self._connection.execute(_RELEASE, prepare=False)
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            self._has_failed = True
            return error
        self._has_failed = False
        return cast("list[RowAnswer]", await cursor.fetchall())
