"""Reading the catalog again before a transaction that changed a definition is dispatched.

What was read may already include changes that committed later. Those are in the stream behind the
transaction, which goes on being received meanwhile: if one is found there, what was read holds
only from the moment of reading on, and everything before it becomes ``resync``.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from heliograph import limits
from heliograph.core.replication.lsn import MAX_LSN, ZERO_LSN, Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import UnavailableError
from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.catalog import rights_fingerprint
from heliograph.server.delivery.channel import ROLE_NOT_USABLE, close_failed, close_hopeless
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.dispatcher import Dispatcher
from heliograph.server.delivery.groups import BindingGroup
from heliograph.server.delivery.late_writers import LateWriters
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_messages import DefinitionChange
from heliograph.server.delivery.rights_teller import tell
from heliograph.server.delivery.rights_watch import RightsWatch
from heliograph.server.delivery.serving import ServingRules
from heliograph.server.delivery.table_registry import TableRegistry
from heliograph.server.delivery.tables import lay_out

_log = structlog.get_logger("heliograph.delivery")


class WildcardSubscriptions(Protocol):
    """Subscriptions that stand for tables to come."""

    def has_wildcards(self) -> bool:
        """Tell whether there are any."""
        ...

    async def expand(self, table_oid: int) -> None:
        """Give them a table that is new to the stream."""
        ...


@dataclass(frozen=True, slots=True)
class PreparationParts:
    """What preparation connects.

    Attributes:
        admin: Takes snapshots.
        registry: Read again.
        dispatcher: Told ``resync`` for tables that changed.
        dependencies: Told that definitions changed.
        rights_log: Tells whether more changed meanwhile.
        rights: Compares what decides rights.
        progress: How far the stream was received.
        rules: Which tables are served to whom.
        late_writers: Looks for them when a publication has changed.
    """

    admin: AdminDatabase
    registry: TableRegistry
    dispatcher: Dispatcher
    dependencies: Dependencies
    rights_log: RightsLog
    rights: RightsWatch
    progress: StreamProgress
    rules: ServingRules
    late_writers: LateWriters


class Preparation:
    """Keeps the registry true to the stream; belongs to the event loop.

    Attributes:
        wildcards: Set once, before the stream begins.
    """

    def __init__(self, parts: PreparationParts) -> None:
        """Wire the parts."""
        self._admin = parts.admin
        self._registry = parts.registry
        self._dispatcher = parts.dispatcher
        self._dependencies = parts.dependencies
        self._rights_log = parts.rights_log
        self._rights = parts.rights
        self._rights.read_again = self.read_again
        self._progress = parts.progress
        self._rules = parts.rules
        self._late_writers = parts.late_writers
        self._reading_again = asyncio.Lock()
        #: By oid, in the order in which the stream brought them.
        self._seen_relations: dict[int, None] = {}
        self._fingerprint = ""
        self._is_distrusted = False
        self.wildcards: WildcardSubscriptions | None = None

    def is_needed(self, transaction: Transaction, change: DefinitionChange | None) -> bool:
        """Tell whether a transaction must wait for the catalog."""
        if self._is_distrusted:
            return True
        if change is not None and self._concerned(change):
            return True
        for relation in transaction.changed_relations:
            entry = self._registry.entry(relation.oid)
            if entry is not None and lay_out(entry.description, relation) is None:
                return True
            if relation.oid not in self._seen_relations and self._has_wildcards():
                return True
        return False

    def distrust(self) -> None:
        """Have everything known read again before the next transaction: messages were missed.

        Since when it has held was a position of the stream before, which means nothing in another.
        """
        self._dependencies.definitions_changed()
        self._dependencies.forget_kept()
        self._is_distrusted = True
        for entry in self._registry.entries().values():
            entry.valid_since = ZERO_LSN

    def definitions_changed(self, change: DefinitionChange, *, is_new: bool) -> None:
        """Have what policies read looked up again; called when a change arrives, not in its turn.

        A judgement that waits for the stream to pass it must find it looked up anew.

        Args:
            change: What arrived.
            is_new: Whether it is no change that an earlier process may have received.
        """
        self._dependencies.definitions_changed()
        tables = None if change.is_general else change.tables
        if is_new:
            self._dependencies.forget_kept(tables)
        if change.is_publishing:
            self._late_writers.publication_changed(tables)

    def may_change_rights(self, change: DefinitionChange) -> bool:
        """Tell whether a changed definition may concern any judgement."""
        if change.is_general or self._registry.entries().keys() & change.tables:
            return True
        return any(self._rights_log.follows(oid) for oid in change.tables)

    async def prepare(
        self,
        transaction: Transaction,
        change: DefinitionChange | None,
        is_wanted: Callable[[], bool],
    ) -> None:
        """Read again what the transaction changed.

        Args:
            transaction: The next one to be dispatched.
            change: What it changed, as far as messages say.
            is_wanted: Asked after each attempt that failed: false once another history has begun,
                in which the transaction may never become visible.
        """
        concerned = set[int]() if change is None else self._concerned(change)
        if self._is_distrusted:
            concerned = set(self._registry.entries())
            self._is_distrusted = False
        for relation in transaction.changed_relations:
            entry = self._registry.entry(relation.oid)
            if entry is not None and lay_out(entry.description, relation) is None:
                concerned.add(relation.oid)
        while True:
            try:
                if change is not None and change.is_publishing:
                    await self._late_writers.look_back(concerned)
                if concerned:
                    await self._reload(concerned, transaction)
                    await self._tell_partitions()
                await self._expand_new(transaction)
            except UnavailableError as error:
                _log.warning("catalog_not_readable", error=str(error))
                await asyncio.sleep(limits.CATALOG_RETRY_S)
                if not is_wanted():
                    return
            else:
                return

    async def watch(self) -> None:
        """Compare what decides rights from time to time, until cancelled.

        Judgements compare it themselves; this finds a change while nothing is judged, and what
        they leave to the event triggers but no event trigger reports (``REASSIGN OWNED``).
        """
        while True:
            try:
                await self.check()
            except UnavailableError as error:
                _log.warning("catalog_not_readable", error=str(error))
            await asyncio.sleep(limits.CATALOG_CHECK_INTERVAL_S)

    async def check(self) -> None:
        """Read all rights again if anybody's may have changed since the last look."""
        async with self._admin.connection() as connection:
            found = await rights_fingerprint(connection)
        # The publication may have changed, too, while messages were missed.
        is_other = self._is_distrusted or self._fingerprint not in {"", found}
        if self._rights.compare(await self._rights.look()) or is_other:
            async with self._reading_again:
                await self._read_all()
        await self._tell_partitions()
        # Not before: a reading that failed is to be repeated.
        self._fingerprint = found

    def tell_publication_changed(self, oid: int) -> None:
        """Tell whoever follows a table that what its late writers wrote can be loaded now."""
        for group in self._dispatcher.index.groups(oid):
            _tell(group, "publication_changed")

    async def read_again(self) -> None:
        """Read all rights again unless somebody else has done so meanwhile.

        Raises:
            UnavailableError: If the database does not answer.
        """
        async with self._reading_again:
            if self._rights.is_disputed:
                await self._read_all()

    async def _read_all(self) -> None:
        self._dependencies.definitions_changed()
        # First the state, then the rights: a change in between makes the next state differ again.
        disputed = self._rights.disputed()
        state = await self._rights.look()
        for oid in tuple(self._registry.entries()):
            await self._replace(oid, state.insert_lsn)
        self._rights.adopt(state, disputed)
        # What existed while they were read, and did not before, disputes them again.
        await self._rights.look_before_reading()

    def _has_wildcards(self) -> bool:
        return self.wildcards is not None and self.wildcards.has_wildcards()

    def _concerned(self, change: DefinitionChange) -> set[int]:
        known = self._registry.entries().keys()
        return set(known) if change.is_general else set(known & change.tables)

    async def _reload(self, oids: set[int], transaction: Transaction) -> None:
        """Read tables again, and find out since when what was read holds.

        It was read between two snapshots. If no definition changed between them, it holds since
        the last change that the first one sees; otherwise it is read again. Until that is known
        it holds for nothing.
        """
        await self._rights.look_before_reading()
        opening, since = await self._position_seeing(transaction)
        for _ in range(limits.CATALOG_READINGS_MAX):
            for oid in oids:
                await self._replace(oid, MAX_LSN)
            closing, insert_lsn = await self._position_seeing(transaction)
            try:
                await self._progress.wait(insert_lsn, limits.STREAM_WAIT_S)
            except UnavailableError:
                # The reader is held up: what may have changed meanwhile is not known.
                since = insert_lsn
                break
            since = self._rights_log.last_definition(closing)
            if since == self._rights_log.last_definition(opening):
                break
            opening, since = closing, insert_lsn
        for entry in self._registry.entries().values():
            if entry.valid_since == MAX_LSN:
                entry.valid_since = max(since, transaction.commit_lsn)
        await self._rights.confirm()

    async def _position_seeing(self, transaction: Transaction) -> tuple[Snapshot, Lsn]:
        for _ in range(limits.JUDGEMENT_ATTEMPTS_MAX):
            snapshot, insert_lsn = await self._admin.take_position()
            if snapshot.sees(transaction.xid):
                return snapshot, insert_lsn
            await asyncio.sleep(0.01)
        message = "the transaction that changed a definition is not visible yet"
        raise UnavailableError(message)

    async def _replace(self, oid: int, valid_since: Lsn) -> None:
        """Read a table again; an entry that differs from what was known holds since then."""
        old = self._registry.entry(oid)
        fresh = await self._registry.reload(oid, valid_since)
        if fresh is old:
            return
        if old and fresh and old.description.was_republished(fresh.description):
            await self._late_writers.look([oid])
        for group in self._dispatcher.index.groups(oid):
            if fresh is None or not group.parameters.may_name(*fresh.description.name_in_full):
                group.withhold()
                _end_gone(group)
                continue
            if group.role not in fresh.rights:
                group.withhold()
                close_hopeless(tuple(group.channels), ROLE_NOT_USABLE)
                continue
            described, was_withheld = group.entry.description, group.is_withheld
            group.adopt(fresh, self._rules)
            if described.name_in_full != fresh.description.name_in_full:
                _tell(group, "table_gone")
            elif described.columns != fresh.description.columns:
                _tell(group, "schema_changed")
            elif not described.is_published_like(fresh.description):
                _tell(group, "publication_changed")
            elif group.is_withheld is not was_withheld:
                _tell(group, "rights_changed")
            else:
                tell(group)

    async def _tell_partitions(self) -> None:
        """Tell whoever follows a table of which rows came or went with a partition.

        In no order with the rows: it is not known where in the stream it happened.
        """
        for oid in await self._registry.changed_partitions():
            for group in self._dispatcher.index.groups(oid):
                _tell(group, "partitions_changed")

    async def _expand_new(self, transaction: Transaction) -> None:
        for relation in transaction.changed_relations:
            if relation.oid not in self._seen_relations and self.wildcards is not None:
                await self.wildcards.expand(relation.oid)
                self._seen_relations[relation.oid] = None
                if len(self._seen_relations) > limits.RELATIONS_MAX:
                    # It is new again when it comes back: that costs a look at the catalog.
                    del self._seen_relations[next(iter(self._seen_relations))]


def _tell(group: BindingGroup, reason: str) -> None:
    for channel in tuple(group.channels):
        channel.resync(reason)


def _end_gone(group: BindingGroup) -> None:
    """End the channels of a table that is gone: what has its name by now is found by joining.

    One that stands for several tables goes on with the others.
    """
    if group.parameters.is_wildcard:
        _tell(group, "table_gone")
    else:
        close_failed(tuple(group.channels), "table_gone: the table was dropped or renamed")
