"""The tables in use, read from the catalog once and again when their definition changed."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from heliograph.core.changelog.position import Fingerprint, make_fingerprint
from heliograph.core.matching.table_description import TableKind
from heliograph.core.replication.lsn import Lsn
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.catalog import Catalog, PublishedTable
from heliograph.postgres.partitions import read_insert_position, read_leaves, rows_moved
from heliograph.postgres.table_writers import read_table_writers
from heliograph.server.delivery.late_writers import LateWriters
from heliograph.server.delivery.rights_watch import RightsWatch
from heliograph.server.delivery.shared_answer import SharedAnswer
from heliograph.server.delivery.tables import TableEntry

if TYPE_CHECKING:
    from heliograph.postgres.partitions import Leaves


class TableRegistry:
    """Entries by oid; belongs to the event loop.

    An entry stays once it was read, subscribed to or not: its number is bounded by the tables of
    the publication, and one that is kept is kept true.

    Attributes:
        partitions_version: Grows whenever `partitions_mark` of a table may be another.
    """

    def __init__(
        self,
        admin: AdminDatabase,
        catalog: Catalog,
        rights: RightsWatch,
        late_writers: LateWriters,
    ) -> None:
        """Start with nothing read.

        Args:
            admin: Reads.
            catalog: What is read.
            rights: Compares whether what was read still holds.
            late_writers: Told who writes to a table that is read for the first time.
        """
        self._admin = admin
        self._rights = rights
        self._late_writers = late_writers
        self._catalog = catalog
        self._entries: dict[int, TableEntry] = {}
        self._leaves: dict[int, Leaves] = {}
        self._partitions_marks: dict[int, Fingerprint] = {}
        self.partitions_version = 0
        self._reading = asyncio.Lock()
        self._published = SharedAnswer(self._read_published)

    def entry(self, oid: int) -> TableEntry | None:
        """Return what is known of a table."""
        return self._entries.get(oid)

    def entries(self) -> Mapping[int, TableEntry]:
        """Return everything known."""
        return self._entries

    def partitions_mark(self, oid: int) -> Fingerprint:
        """Return what stands for the partitions of a table: another one when rows moved with one.

        After a restart of the server also when an empty one was made meanwhile.
        """
        return self._partitions_marks.get(oid, Fingerprint(0))

    def _mark_partitions(self, oid: int, leaves: "Leaves") -> None:
        self._partitions_marks[oid] = make_fingerprint(repr(sorted(leaves.items())))
        self.partitions_version += 1

    async def published_tables(self) -> Sequence[PublishedTable]:
        """List what clients may subscribe to, as of now; one look for all who wait.

        Raises:
            UnavailableError: If the database does not answer.
        """
        return await self._published.get()

    async def _read_published(self) -> Sequence[PublishedTable]:
        async with self._admin.connection() as connection:
            return await self._catalog.published_tables(connection)

    async def load(self, oid: int, role: str) -> TableEntry | None:
        """Return the table's entry with the role's rights; None when either does not exist.

        Raises:
            UnavailableError: If the database does not answer.
        """
        known = self._entries.get(oid)
        if known is not None and role in known.rights:
            return known
        await self._rights.watch([oid])
        await self._rights.look_before_reading()
        async with self._reading, self._admin.connection() as connection:
            known = self._entries.get(oid)
            if known is not None and role in known.rights:
                # Somebody else read it meanwhile.
                return known
            if known is None:
                description = await self._catalog.describe(connection, oid)
                if description is None:
                    return None
                known = TableEntry(description, {})
            rights = await self._catalog.rights(connection, oid, role)
            if rights is None:
                return None
            if known.description.kind is TableKind.PARTITIONED_TABLE and oid not in self._leaves:
                # Before anybody has loaded its rows: whatever changes later is found.
                self._leaves.update(await read_leaves(connection, [oid]))
                self._mark_partitions(oid, self._leaves[oid])
            if oid not in self._entries:
                suspicions = self._late_writers.suspicions
                writers = await read_table_writers(connection, [oid])
                published_by = known.description.published_by
                self._late_writers.note_new(oid, writers, published_by, suspicions)
            # Another load may have replaced nothing: the lock is held. Shared by all its groups.
            known.rights[role] = rights
            self._entries[oid] = known
        await self._rights.confirm()
        current = self._entries.get(oid)
        return current if current is not None and role in current.rights else None

    async def reload(self, oid: int, valid_since: Lsn) -> TableEntry | None:
        """Read a table and all known roles' rights again.

        Args:
            oid: The table.
            valid_since: Where what is read now begins to hold.

        Returns:
            The new entry if anything differs from the old one, the old one if nothing does, None
            if the table is gone.
        """
        async with self._reading, self._admin.connection() as connection:
            old = self._entries.get(oid)
            self._catalog.forget_types()
            description = await self._catalog.describe(connection, oid)
            if description is None or old is None:
                self._entries.pop(oid, None)
                self._leaves.pop(oid, None)
                self._partitions_marks.pop(oid, None)
                return None
            fresh = TableEntry(description, {}, valid_since)
            for role in old.rights:
                rights = await self._catalog.rights(connection, oid, role)
                if rights is not None:
                    fresh.rights[role] = rights
            if (fresh.description, fresh.rights) == (old.description, old.rights):
                # What is in use was read too early to know since when it holds; now that is known.
                old.valid_since = min(old.valid_since, valid_since)
                return old
            self._entries[oid] = fresh
            return fresh

    async def changed_partitions(self) -> list[int]:
        """Return the tables of which rows came or went with a partition since the last look.

        What was committed before this look counts as older than the table's rights: it would lead
        a client that loads its rows now back to a partition that is gone.
        """
        if not self._leaves:
            return []
        async with self._reading, self._admin.connection() as connection:
            found = await read_leaves(connection, self._leaves)
            other = [oid for oid, leaves in found.items() if leaves != self._leaves[oid]]
            changed = [
                oid for oid in other if await rows_moved(connection, self._leaves[oid], found[oid])
            ]
            if changed:
                insert_lsn = await read_insert_position(connection)
                for oid in changed:
                    entry = self._entries[oid]
                    entry.valid_since = max(entry.valid_since, insert_lsn)
                    self._mark_partitions(oid, found[oid])
            self._leaves.update(found)
        return changed
