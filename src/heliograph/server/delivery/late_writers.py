"""Transactions that wrote to a table before the publication sent its rows, and have not ended.

PostgreSQL decides change by change what it sends: of a transaction that commits behind an ``ALTER
PUBLICATION`` the stream may lack whatever it had written before. Nobody can be told of those rows,
and who loads his rows before it commits does not find them. So until the last of these transactions
has ended no position is told to who follows the table, and then everybody is told ``resync``.

Source: https://www.postgresql.org/docs/current/logicaldecoding-output-plugin.html
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from heliograph import limits
from heliograph.core.replication.snapshot import Snapshot, precedes, widen_xid
from heliograph.errors import UnavailableError
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.table_writers import read_table_writers

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger("heliograph.delivery")


class LateWriters:
    """By table; belongs to the event loop.

    Attributes:
        on_ended: Told of each table whose late writers have all ended; set once.
    """

    def __init__(self, admin: AdminDatabase) -> None:
        """Start with none.

        Args:
            admin: Asked who writes, and what is visible.
        """
        self._admin = admin
        self._writers: dict[int, set[int]] = {}
        #: With the number of the latest suspicion.
        self._suspected: dict[int, int] = {}
        self._suspicions = 0
        self._has_changed = False
        self._wanted = asyncio.Event()
        self.on_ended: Callable[[int], None] | None = None

    def __len__(self) -> int:
        """Return how many tables have any."""
        return len(self._writers.keys() | self._suspected.keys())

    def concern(self, tables: Iterable[int]) -> bool:
        """Tell whether any of some tables has, or may have."""
        return bool(len(self)) and any(
            oid in self._writers or oid in self._suspected for oid in tables
        )

    def suspect(self, tables: Iterable[int]) -> None:
        """Have tables looked at soon; until then they count as having some."""
        self._suspicions += 1
        self._suspected.update(dict.fromkeys(tables, self._suspicions))
        self._wanted.set()

    async def look(self, tables: Collection[int]) -> None:
        """Take who writes to some tables now for late: their publication has just changed.

        Raises:
            UnavailableError: If the database does not answer.
        """
        if not tables:
            return
        suspicions = self._suspicions
        async with self._admin.connection() as connection:
            found = await read_table_writers(connection, tables)
        self._add(found)
        for table in tables:
            # Suspected meanwhile it has to be looked at once more.
            if table in self._suspected and self._suspected[table] <= suspicions:
                del self._suspected[table]

    def publication_changed(self, tables: Iterable[int] | None) -> None:
        """Learn that the publication has changed for some tables, known or not; None: for any."""
        if tables is None:
            self._has_changed = True
        else:
            self.suspect(tables)

    def note_new(self, table: int, writers: Collection[int], published_by: Collection[int]) -> None:
        """Find those of a table that was not known, by when its publication was changed last.

        That may have been long ago, so only who is older than the change is late. A transaction
        that began while the one that changed the publication was open, and wrote before that
        committed, is found by the event trigger's message only.

        Args:
            table: Its oid.
            writers: Who writes to it, read after the catalog.
            published_by: The transactions that made the publication what it is.
        """
        if not self._has_changed:
            writers = [
                xid for xid in writers if any(precedes(xid, changed) for changed in published_by)
            ]
        if writers:
            self._add({table: writers})

    def _add(self, found: Mapping[int, Collection[int]]) -> None:
        for table, xids in found.items():
            known = self._writers.setdefault(table, set())
            if not known.issuperset(xids):
                known.update(xids)
                _log.warning(
                    "late_writers", table_oid=table, xids=sorted(known)[: limits.LOGGED_XIDS_MAX]
                )
            self._wanted.set()

    async def run(self) -> None:
        """Watch for their end until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self.check()
            except UnavailableError as error:
                _log.warning("late_writers_not_watched", error=str(error))
            if not len(self):
                self._wanted.clear()
            else:
                await asyncio.sleep(limits.LATE_WRITERS_CHECK_INTERVAL_S)

    async def check(self) -> None:
        """Do one round of `run`.

        Raises:
            UnavailableError: If the database does not answer.
        """
        await self.look(tuple(self._suspected))
        if not self._writers:
            return
        snapshot, _ = await self._admin.take_position()
        for table, xids in tuple(self._writers.items()):
            left = {xid for xid in xids if _goes_on(xid, snapshot)}
            if left:
                self._writers[table] = left
                continue
            del self._writers[table]
            _log.info("late_writers_ended", table_oid=table)
            if self.on_ended is not None:
                self.on_ended(table)


def _goes_on(xid: int, snapshot: Snapshot) -> bool:
    """Tell whether a transaction has not ended; one from before a database was put back has."""
    return not snapshot.sees(xid) and widen_xid(xid, near=snapshot.xmax) < snapshot.xmax
