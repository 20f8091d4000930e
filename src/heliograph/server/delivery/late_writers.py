"""Transactions that wrote to a table before the publication sent its rows, and have not ended.

PostgreSQL decides change by change what it sends: of a transaction that commits behind an ``ALTER
PUBLICATION`` the stream may lack whatever it had written before. Nobody can be told of those rows,
and who loads his rows before it commits does not find them. So until the last of these transactions
has ended no position is told to who follows the table, and then everybody is told ``resync``.

Source: https://www.postgresql.org/docs/current/logicaldecoding-output-plugin.html
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import structlog

from heliograph import limits
from heliograph.core.replication.snapshot import precedes
from heliograph.errors import UnavailableError
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.table_writers import (
    TableWriters,
    read_next_xid,
    read_table_writers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger("heliograph.delivery")


class _Known(NamedTuple):
    """What was found when a table was looked at last.

    Attributes:
        next_xid: Who is older may have written before.
        suspicions: How many had come before.
        doubted: Who wrote, and is late if the publication had changed right before.
    """

    next_xid: int
    suspicions: int
    doubted: frozenset[int] = frozenset()


class LateWriters:
    """By table; belongs to the event loop.

    Attributes:
        suspicions: How often tables were suspected.
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
        self.suspicions = 0
        self._has_changed = False
        self._known: dict[int, _Known] = {}
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
        self.suspicions += 1
        self._suspected.update(dict.fromkeys(tables, self.suspicions))
        self._wanted.set()

    async def look(self, tables: Collection[int]) -> None:
        """Take who writes to tables now for late: what the publication sends of them has changed.

        Raises:
            UnavailableError: If the database does not answer.
        """
        if tables:
            suspicions = self.suspicions
            found = await self._read(tables)
            self._known.update(dict.fromkeys(tables, _Known(found.next_xid, suspicions)))
            self._add(found.by_table)

    async def look_back(self, tables: Collection[int]) -> None:
        """Do the same for known tables whose change may have been there when they were read.

        Who began later than that is not late.

        Raises:
            UnavailableError: If the database does not answer.
        """
        if tables:
            found = await self._read(tables)
            for table, xids in found.by_table.items():
                self._add_older(table, xids, self._known.get(table))

    def publication_changed(self, tables: Iterable[int] | None) -> None:
        """Learn that the publication has changed for some tables; None: for any.

        Those that are known are looked at when the change is dispatched; others now. If one became
        known just before, who was in doubt then may have ended since.
        """
        if tables is None:
            self._has_changed = True
            tables = tuple(self._known)
        else:
            tables = tuple(tables)
            self.suspect(table for table in tables if table not in self._known)
        for table in tables:
            known = self._known.get(table)
            if known is not None and known.doubted:
                self._known[table] = known._replace(doubted=frozenset())
                self._add({table: known.doubted})

    def note_new(
        self, table: int, writers: TableWriters, published_by: Collection[int], suspicions: int
    ) -> None:
        """Find those of a table that was not known, by when its publication was changed last.

        That may have been long ago, so only who is older than the change is late. A transaction
        that began while the one that changed the publication was open, and wrote before that
        committed, is found by the event trigger's message only, which comes before its own rows.

        Args:
            table: Its oid.
            writers: Who writes to it, read after the catalog.
            published_by: The transactions that made the publication what it is.
            suspicions: How many there had been before the writers were read.
        """
        xids = late = frozenset(writers.by_table.get(table, ()))
        if not self._has_changed and table not in self._suspected:
            late = frozenset(xid for xid in xids if any(precedes(xid, by) for by in published_by))
        self._known[table] = _Known(writers.next_xid, suspicions, xids - late)
        if late:
            self._add({table: late})

    async def _read(self, tables: Collection[int]) -> TableWriters:
        async with self._admin.connection() as connection:
            return await read_table_writers(connection, tables)

    def _add(self, found: Mapping[int, Collection[int]]) -> None:
        for table, xids in found.items():
            known = self._writers.setdefault(table, set())
            if not known.issuperset(xids):
                known.update(xids)
                _log.warning(
                    "late_writers", table_oid=table, xids=sorted(known)[: limits.LOGGED_XIDS_MAX]
                )
            self._wanted.set()

    def _add_older(self, table: int, xids: Collection[int], known: _Known | None) -> None:
        """Add those of a table's writers who are older than what is known of it."""
        if known is not None:
            xids = {xid for xid in xids if precedes(xid, known.next_xid)}
        if xids:
            self._add({table: xids})

    async def _look_at_suspected(self) -> None:
        tables = tuple(self._suspected)
        if not tables:
            return
        suspicions = self.suspicions
        found = await self._read(tables)
        for table in tables:
            suspected, known = self._suspected[table], self._known.get(table)
            if known is not None and known.suspicions < suspected:
                # It was read before that.
                known = None
            self._add_older(table, found.by_table.get(table, ()), known)
            # Suspected meanwhile it has to be looked at once more.
            if suspected <= suspicions:
                del self._suspected[table]

    async def run(self) -> None:
        """Watch for their end until cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.check()
            except UnavailableError as error:
                _log.warning("late_writers_not_watched", error=str(error))
            interval_s = limits.LATE_WRITERS_CHECK_INTERVAL_S if len(self) else None
            # Who is suspected is not left waiting: whoever begins to write would count, too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._wanted.wait()

    async def check(self) -> None:
        """Do one round of `run`.

        Raises:
            UnavailableError: If the database does not answer.
        """
        await self._look_at_suspected()
        if not self._writers:
            return
        async with self._admin.connection() as connection:
            snapshot, next_xid = await read_next_xid(connection)
        for table, xids in tuple(self._writers.items()):
            # In a database that was put back those of before are unknown.
            left = {xid for xid in xids if not snapshot.sees(xid) and precedes(xid, next_xid)}
            if left:
                self._writers[table] = left
                continue
            del self._writers[table]
            _log.info("late_writers_ended", table_oid=table)
            if self.on_ended is not None:
                self.on_ended(table)
