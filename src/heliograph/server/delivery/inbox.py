"""The sink of committed transactions: log them, note what they change, dispatch them in order."""

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import structlog

from heliograph import limits
from heliograph.core.changelog.ring import Ring
from heliograph.core.changelog.trail import SlotTrail
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.transaction import Transaction
from heliograph.ports.change_source import SourceIdentity
from heliograph.ports.clock import Clock
from heliograph.server.delivery.continuity import Continuity
from heliograph.server.delivery.dispatcher import Dispatcher
from heliograph.server.delivery.positions import Unsettled
from heliograph.server.delivery.preparation import Preparation
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_messages import DefinitionChange, RightsMessages
from heliograph.server.delivery.rights_teller import RightsTeller
from heliograph.server.delivery.rights_watch import RightsWatch

_log = structlog.get_logger("heliograph.delivery")


@dataclass(frozen=True, slots=True)
class InboxParts:
    """What the inbox connects.

    Attributes:
        ring: Keeps every transaction.
        trail: Says what the slot may confirm.
        continuity: Decides whether what comes continues what was read.
        dispatcher: Gets them in order.
        preparation: Reads the catalog again where one needs it.
        progress: Told how far the stream was received.
        unsettled: Told of every transaction.
        rights_log: Told what each changes.
        rights: Told when another history begins.
        rights_messages: Recognises the messages of our event triggers.
        rights_teller: Told of every transaction once it was dispatched.
        clock: For the ring's ages.
    """

    ring: Ring
    trail: SlotTrail
    continuity: Continuity
    dispatcher: Dispatcher
    preparation: Preparation
    progress: StreamProgress
    unsettled: Unsettled
    rights_log: RightsLog
    rights: RightsWatch
    rights_messages: RightsMessages
    rights_teller: RightsTeller
    clock: Clock


class _Waiting(NamedTuple):
    transaction: Transaction
    change: DefinitionChange | None
    large: OversizeTransaction | None


class ChangeInbox:
    """Implements `ports.change_source.ChangeSink`; belongs to the event loop."""

    def __init__(self, parts: InboxParts) -> None:
        """Wire the parts; `run` starts the work that waits."""
        self._ring = parts.ring
        self._trail = parts.trail
        self._continuity = parts.continuity
        self._rights_teller = parts.rights_teller
        self._dispatcher = parts.dispatcher
        self._preparation = parts.preparation
        self._progress = parts.progress
        self._progress.is_held_up = lambda: not self.has_room()
        self._unsettled = parts.unsettled
        self._rights_log = parts.rights_log
        self._rights = parts.rights
        self._rights_messages = parts.rights_messages
        self._clock = parts.clock
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._kept_up_to = ZERO_LSN
        #: What commits before it an earlier process may have received.
        self._news_begin = ZERO_LSN
        self.identity: SourceIdentity | None = None
        self.is_connected = False
        #: Seconds between the commit of the last transaction and its arrival here.
        self.arrival_lag_s = 0.0

    def source_started(self, identity: SourceIdentity) -> None:
        """Compare with what was read so far, and begin anew where that is not continued."""
        before, self.identity = self.identity, identity
        self.is_connected = True
        if before is not None:
            self._continuity.note_received(self._kept_up_to)
        reason = self._continuity.start(identity)
        if before is None:
            self._begin(identity)
        elif reason is not None:
            self._begin_anew(identity)
            self._dispatcher.resync_all(reason)

    def _begin(self, identity: SourceIdentity) -> None:
        """Begin with what the slot sends, which may be what an earlier process has received."""
        floor = _before(identity.start_lsn)
        self._ring.restart(floor)
        self._follow_slot(identity)
        self._dispatcher.start(floor, identity.wal_end)
        self._news_begin = identity.wal_end
        self._kept_up_to = identity.start_lsn

    def _follow_slot(self, identity: SourceIdentity) -> None:
        self._trail.restart(is_kept=not identity.is_polled, slot_wal_bytes=identity.slot_wal_bytes)

    def _begin_anew(self, identity: SourceIdentity) -> None:
        """Forget everything kept: it does not join what comes.

        Positions of another history may be lower than any known here, and definitions may have
        changed without a message that reached us.
        """
        start_lsn = identity.start_lsn
        self._ring.restart(_before(start_lsn))
        self._follow_slot(identity)
        self._unsettled.clear()
        self._rights_log.restart()
        self._rights.restart()
        self._progress.restart(start_lsn)
        self._dispatcher.restart(_before(start_lsn))
        self._preparation.distrust()
        for waiting in self._waiting:
            if waiting.large is not None:
                waiting.large.close()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._room.set()
        self._kept_up_to = start_lsn

    def source_lost(self, reason: str) -> None:
        """Note that nothing arrives at the moment."""
        self.is_connected = False
        _log.warning("source_lost", reason=reason)

    def receive_transaction(self, transaction: Transaction) -> None:
        """Keep a transaction and dispatch it, or have it wait for the catalog."""
        change = self._keep(transaction)
        if self._waiting or self._preparation.is_needed(transaction, change):
            self._put(_Waiting(transaction, change, None))
        else:
            self._dispatch(transaction, change)
        self.receive_progress(transaction.end_lsn)

    async def receive_oversize(self, transaction: OversizeTransaction) -> None:
        """Do the same with a transaction too large for memory; its rows stay in their file."""
        self._put(_Waiting(transaction.mark, self._keep(transaction.mark), transaction))
        self.receive_progress(transaction.mark.end_lsn)

    def receive_progress(self, progress: Lsn) -> None:
        """Note how far the stream was read."""
        self._kept_up_to = max(self._kept_up_to, progress)
        self._ring.pass_to(progress)
        if not self._waiting:
            self._dispatcher.pass_to(progress)
        self._progress.advance(progress)

    def acknowledged_lsn(self) -> Lsn:
        """Return what the slot may confirm: it trails, so that a restart fills the ring again.

        What was received is noted first: a slot beyond it would have been moved by somebody else.
        """
        self._continuity.note_received(self._kept_up_to)
        return self._trail.confirmed(
            self._kept_up_to,
            self._clock.monotonic_s(),
            unseen_from=self._unsettled.first_commit_lsn(),
        )

    def has_room(self) -> bool:
        """Tell whether the reader may go on."""
        return (
            len(self._waiting) < limits.INBOX_TRANSACTIONS_MAX
            and self._waiting_bytes < limits.INBOX_BYTES_MAX
        )

    async def wait_room(self) -> None:
        """Wait until it may."""
        await self._room.wait()

    @property
    def waiting(self) -> int:
        """Transactions that wait for the catalog, or behind one that does."""
        return len(self._waiting)

    async def run(self) -> None:
        """Prepare and dispatch what waits, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            dispatched = 0
            while self._waiting:
                await self._work_off(self._waiting[0])
                dispatched += 1
                if dispatched % limits.DISPATCHED_PER_TURN_MAX == 0:
                    await asyncio.sleep(0)
                if self.has_room():
                    self._room.set()

    async def _work_off(self, waiting: _Waiting) -> None:
        """Prepare and dispatch the first one of those that wait."""
        if self._preparation.is_needed(waiting.transaction, waiting.change):
            is_wanted = partial(self._is_first, waiting)
            await self._preparation.prepare(waiting.transaction, waiting.change, is_wanted)
        if self._is_first(waiting):  # otherwise another history began
            if waiting.large is not None:
                self._dispatcher.keep(waiting.large)
            self._dispatch(waiting.transaction, waiting.change)
            self._waiting.popleft()
            self._waiting_bytes -= waiting.transaction.size_bytes
            if not self._waiting:
                self._dispatcher.pass_to(self._kept_up_to)

    def _dispatch(self, transaction: Transaction, change: DefinitionChange | None) -> None:
        self._dispatcher.dispatch(transaction)
        self._rights_teller.dispatched(transaction, change)

    def _is_first(self, waiting: _Waiting) -> bool:
        return bool(self._waiting) and self._waiting[0] is waiting

    def _put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.transaction.size_bytes
        self._filled.set()
        if not self.has_room():
            self._room.clear()

    def _keep(self, transaction: Transaction) -> DefinitionChange | None:
        """Put a transaction into the log and note whose rights it may change."""
        self._dispatcher.counters.transactions += 1
        now_s = self._clock.monotonic_s()
        self._ring.append(transaction, now_s)
        self._trail.add(transaction, now_s)
        self._unsettled.add(transaction)
        self.arrival_lag_s = self._clock.unix_s() - transaction.commit_time_us / 1e6
        commit_lsn, xid = transaction.commit_lsn, transaction.xid
        changed = [relation.oid for relation in transaction.relations]
        changed.extend(relation.oid for relation in transaction.truncated)
        self._rights_log.rows_changed(changed, commit_lsn, xid)
        for relation in transaction.changed_relations:
            if relation.is_partial:
                _log.warning(
                    "partition_without_old_rows",
                    table_oid=relation.oid,
                    remedy="ALTER TABLE … REPLICA IDENTITY FULL for each partition, new ones too",
                )
        change = None
        if transaction.messages or transaction.messages_omitted:
            change = self._rights_messages.read(transaction)
        if change is not None:
            is_new = commit_lsn >= self._news_begin
            change = change if is_new else change.of_the_past()
            self._preparation.definitions_changed(change, is_new=is_new)
            self._rights_log.relations_changed(change.tables, commit_lsn)
            if self._preparation.may_change_rights(change):
                self._rights_log.definitions_changed(commit_lsn, xid)
        return change


def _before(start_lsn: Lsn) -> Lsn:
    """Return the last position at which a transaction may commit that a slot does not send."""
    return Lsn(max(0, start_lsn - 1))
