"""The tables that policies read: following them through the stream.

Judging finds out what was read (`Judgement.relations_read`); for a judgement to be valid, changes
of those tables must be visible in the stream. They are added to a publication of their own that
no client can subscribe to. A judgement that reads a table which was not followed yet can not be
trusted for what committed before: that becomes ``resync``, once per table.

What was read is kept for the next start, or else every client would be told then that its rights
rest on other tables than before. A changed definition takes it out of what is kept, so that what
is not read any more is forgotten some day.

Who alters a publication may take such a table out of it, also out of one that clients subscribe to.
So whenever definitions have changed it is looked up what is still followed. What is lost is
followed again, and everybody whose rights it decides is told: its changes went by unseen.

A table that can not be followed (without a key, unlogged, of another owner) changes unseen. What
was judged by it soon after its commit is shown all the same; older changes become ``resync``, so
that no grant reveals what was committed longer before than UNFOLLOWED_JUDGEMENT_AGE_S_MAX.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from heliograph import limits
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.errors import UnavailableError
from heliograph.ports.reads_store import ReadsStore
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.dependency_publication import FollowResult
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_watch import RightsWatch

if TYPE_CHECKING:
    from heliograph.postgres.admin import RelationKind

_log = structlog.get_logger("heliograph.delivery")

#: Adds a table to the publication of dependencies.
Follow = Callable[[int], Awaitable[FollowResult]]


class Dependencies:
    """What is followed and what can not be; belongs to the event loop."""

    def __init__(
        self,
        admin: AdminDatabase,
        log: RightsLog,
        rights: RightsWatch,
        follow: Follow,
        store: ReadsStore,
    ) -> None:
        """Start with nothing known; `start` reads what the publications hold and what was kept."""
        self._store = store
        #: By table: what judging was seen to read since its definition last changed.
        self._kept: dict[int, set[int]] = {}
        self._admin = admin
        self._log = log
        self._rights = rights
        self._follow = follow
        self._kinds: dict[int, RelationKind | None] = {}
        #: Relations looked up since a definition last changed. Bounded, as what is kept of each,
        #: by the relations of the database.
        self._fresh: set[int] = set()
        #: What the policies of a table seem to read, guessed since a definition last changed.
        self._guessed: dict[int, set[int]] = {}
        self._guessing = asyncio.Lock()
        self._publications: Collection[str] = ()
        #: How often definitions have changed, and by when it was looked up what is followed.
        self._changes = self._verified = 0
        self._verifying = asyncio.Lock()
        #: Not followed any more, and not tried again yet.
        self._lost: set[int] = set()
        #: Every oid under which rows of a relation ever arrived.
        self._streams: dict[int, set[int]] = {}
        #: Tables that are not followed, and why.
        self.unfollowed: dict[int, FollowResult] = {}
        #: Which tables, as the stream names them, judging the rows of a table is known to read; and
        #: the other way round. Only ever added to.
        self._reads: dict[int, set[int]] = {}
        self._readers: dict[int, set[int]] = {}
        self._noted: set[tuple[frozenset[int], frozenset[int]]] = set()
        self._wake = asyncio.Event()
        #: Told of tables of which judging turned out to read more, or what had changed unseen; set
        #: once.
        self.on_new_reads: Callable[[Collection[int]], None] | None = None
        #: Grows with every change of what is known to be read.
        self.version = 0

    async def start(self, publications: Collection[str]) -> None:
        """Learn which tables the stream carries from its beginning, and what was read before."""
        self._publications = publications
        followed = await self._admin.followed_tables(publications)
        for oid in followed:
            self._log.follow(oid, ZERO_LSN)
        # A table that was dropped meanwhile can not be followed, which would never end.
        self._kept = {oid: reads & followed for oid, reads in self._store.load().items()}
        await self._rights.watch({oid for reads in self._kept.values() for oid in reads})
        for oid, reads in self._kept.items():
            self._add_reads(oid, reads)

    async def prepare(self, table_oid: int) -> None:
        """Follow what the policies of a table seem to read, before anything is judged."""
        oids = await self._guess(table_oid)
        await self._follow_all({oid for oid in oids if oid not in self.unfollowed})
        await self._rights.watch(oids)
        self._add_reads(table_oid, oids)

    def reads(self, table_oid: int) -> Collection[int]:
        """Return the tables, as the stream names them, that judging a table's rows may read."""
        return self._reads.get(table_oid, ())

    def readers(self, stream_oid: int) -> Collection[int]:
        """Return the tables whose rows are judged by what stands in another one."""
        return self._readers.get(stream_oid, ())

    def note_reads(self, tables: Collection[int], relations_read: frozenset[int]) -> None:
        """Note what judging the rows of some tables has read; it was learned before."""
        key = (frozenset(tables), relations_read)
        if not relations_read or key in self._noted:
            return
        if len(self._noted) >= limits.NOTED_READS_MAX:
            self._noted.clear()
        self._noted.add(key)
        streams = self.stream_oids(relations_read)
        for oid in tables:
            self._add_reads(oid, streams)
        self._keep(tables, streams)

    def _keep(self, tables: Collection[int], streams: Collection[int]) -> None:
        found = [oid for oid in tables if not self._kept.get(oid, set()).issuperset(streams)]
        for oid in found:
            self._kept.setdefault(oid, set()).update(streams)
        if found:
            self._store.save(self._kept)

    def _add_reads(self, table_oid: int, oids: Collection[int]) -> None:
        known = self._reads.get(table_oid)
        new = set(oids) if known is None else set(oids) - known
        if known is not None and not new:
            return
        self._reads.setdefault(table_oid, set()).update(new)
        for oid in new:
            self._readers.setdefault(oid, set()).add(table_oid)
        self.version += 1
        if known is not None and self.on_new_reads is not None:
            # What changed in them until now was not seen to matter.
            self.on_new_reads((table_oid,))

    def forget_kept(self, tables: Collection[int] | None = None) -> None:
        """Keep nothing for the next start that may not be read any more.

        Args:
            tables: What a change of definitions names, if it can not concern anything else.
        """
        if self._kept:
            self._kept = {
                oid: reads
                for oid, reads in self._kept.items()
                if tables is not None and oid not in tables and reads.isdisjoint(tables)
            }
            self._store.save(self._kept)

    def definitions_changed(self) -> None:
        """Have every relation and policy looked up again: they may be part of the change.

        The rows of a table that becomes a partition arrive under the root's oid from then on.
        """
        self._changes += 1
        # Not cleared: what is being looked up now may be what was before the change.
        self._fresh = set()
        self._guessed = {}
        self._noted.clear()
        self._wake.set()

    def is_known(self, relations_read: Collection[int]) -> bool:
        """Tell whether everything that was read is followed, or known to be impossible."""
        return self._fresh.issuperset(relations_read)

    async def learn(self, relations_read: Collection[int]) -> None:
        """Look up relations that were read for the first time and follow them."""
        fresh = self._fresh
        await self._verify()
        unknown = set(relations_read) - fresh
        kinds = {kind.oid: kind for kind in await self._admin.relation_kinds(unknown)}
        tables = {kind.stream_oid for kind in kinds.values() if kind.is_table}
        await self._follow_all(tables - self.unfollowed.keys())
        await self._rights.watch({kind.oid for kind in kinds.values() if kind.has_rights})
        for kind in kinds.values():
            if kind.is_table:
                self._streams.setdefault(kind.oid, set()).add(kind.stream_oid)
        self._kinds.update({oid: kinds.get(oid) for oid in unknown})
        fresh |= unknown

    def stream_oids(self, relations_read: Collection[int]) -> set[int]:
        """Return the followed tables among the relations, as the stream names them or named them.

        A judgement may be older than the change that gave a relation another place.
        """
        return {stream for oid in relations_read for stream in self._streams.get(oid, ())}

    def with_rights(self, relations_read: Collection[int]) -> list[int]:
        """Return the relations whose definition may decide what is seen."""
        kinds = [self._kinds.get(oid) for oid in relations_read]
        return [kind.oid for kind in kinds if kind is not None and kind.has_rights]

    def reads_unfollowed(self, relations_read: Collection[int]) -> bool:
        """Tell whether a judgement read a table whose changes are not seen."""
        kinds = [self._kinds.get(oid) for oid in relations_read]
        streams = {kind.stream_oid for kind in kinds if kind is not None and kind.is_table}
        return not self.unfollowed.keys().isdisjoint(streams)

    async def _guess(self, table_oid: int) -> set[int]:
        """Return what the policies of a table seem to read; one at a time, because it is slow."""
        async with self._guessing:
            guessed = self._guessed
            if table_oid not in guessed:
                guessed[table_oid] = await self._admin.policy_reads(table_oid)
            return guessed[table_oid]

    async def retry(self) -> None:
        """Follow from time to time what was only busy or out of reach, until cancelled.

        After definitions have changed, guess again what the policies in use read.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.DEPENDENCY_RETRY_S):
                    await self._wake.wait()
                await asyncio.sleep(limits.DEPENDENCY_GUESS_WAIT_S)
            must_guess = self._wake.is_set()
            self._wake.clear()
            try:
                await self._verify()
                for oid in tuple(self._reads) if must_guess else ():
                    await self.prepare(oid)
                busy = [oid for oid, result in self.unfollowed.items() if result.may_retry]
                await self._follow_all(busy)
            except UnavailableError as error:
                _log.warning("dependencies_not_followed", error=str(error))
                if must_guess:
                    self._wake.set()

    async def _verify(self) -> None:
        """Find what is not followed any more since definitions have changed, and follow it again.

        Raises:
            UnavailableError: If the database does not answer; then it is to be done once more.
        """
        async with self._verifying:
            changes = self._changes
            if changes == self._verified:
                return
            # Before: what is followed meanwhile is not lost.
            followed = self._log.followed()
            lost = followed - await self._admin.followed_tables(self._publications)
            # Rows of a table that has become a partition come as those of its root.
            kinds = await self._admin.relation_kinds(lost)
            left = {kind.oid for kind in kinds if kind.stream_oid == kind.oid}
            for oid in lost:
                self._log.unfollow(oid)
            # What nobody reads is followed when somebody does, and what was dropped by nobody.
            self._lost |= left & self._readers.keys()
            for oid in tuple(self._lost):
                await self._follow_all((oid,))
                self._lost.discard(oid)
                self._tell_readers(oid)
            self._verified = changes

    def _tell_readers(self, stream_oid: int) -> None:
        """Tell of the tables whose rights one decides that has changed unseen."""
        if self.on_new_reads is not None:
            self.on_new_reads(self.readers(stream_oid))

    async def _follow_all(self, oids: Collection[int]) -> None:
        for oid in oids:
            if self._log.follows(oid):
                continue
            result = await self._follow(oid)
            if not result.is_followed:
                if self.unfollowed.get(oid) != result:
                    _log.warning("dependency_not_followed", table_oid=oid, reason=result.reason)
                self.unfollowed[oid] = result
                continue
            _, insert_lsn = await self._admin.take_position()
            self._log.follow(oid, Lsn(insert_lsn))
            if self.unfollowed.pop(oid, None) is not None:
                self._tell_readers(oid)
