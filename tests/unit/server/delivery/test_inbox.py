"""What the inbox forgets when what comes does not join what was read."""

import asyncio

import pytest

from fixtures.transactions import empty_transaction
from heliograph.core.changelog.ring import Ring
from heliograph.core.changelog.trail import SlotTrail, TrailBounds
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.relation import Relation, ReplicaIdentity
from heliograph.core.replication.snapshot import Snapshot
from heliograph.ports.change_source import SourceIdentity
from heliograph.server.continuity_file import ContinuityInMemory
from heliograph.server.delivery.continuity import Continuity
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.inbox import ChangeInbox, InboxParts
from heliograph.server.delivery.positions import Unsettled
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_messages import RightsMessages
from heliograph.server.delivery.rights_teller import RightsTeller
from heliograph.server.delivery.rights_watch import RightsWatch

pytestmark = pytest.mark.asyncio

TABLE = Relation(7, "public", "notes", ReplicaIdentity.FULL, ())


class Clock:
    def monotonic_s(self):
        return 1.0

    def unix_s(self):
        return 1.0


class Dispatcher:
    def __init__(self):
        self.counters = DeliveryCounters()
        self.told = []

    def dispatch(self, transaction):
        self.told.append(int(transaction.commit_lsn))

    def start(self, floor, rebuilt_at):
        self.passed = [floor]
        self.rebuilt_at = rebuilt_at

    def pass_to(self, progress):
        self.passed.append(progress)

    def restart(self, floor):
        self.passed = [floor]
        self.told.append("restart")

    def resync_all(self, reason):
        self.told.append(reason)


class Preparation:
    """Holds up whatever is needed until the gate opens."""

    def __init__(self):
        self.needed = False
        self.gate = asyncio.Event()
        self.is_distrusted = False

    def is_needed(self, _transaction, _change):
        return self.needed

    async def prepare(self, _transaction, _change, is_wanted):
        while is_wanted() and not self.gate.is_set():
            await asyncio.sleep(0)

    def may_change_rights(self, _change):
        return False

    def distrust(self):
        self.is_distrusted = True


class Kit:
    def __init__(self, trail=None):
        self.dispatcher = Dispatcher()
        self.unsettled = Unsettled()
        self.preparation = Preparation()
        self.ring = Ring(ZERO_LSN)
        self.inbox = ChangeInbox(
            InboxParts(
                ring=self.ring,
                trail=trail or SlotTrail(),
                continuity=Continuity(ContinuityInMemory()),
                dispatcher=self.dispatcher,
                preparation=self.preparation,
                progress=StreamProgress(request=lambda: None, nudge=self.nudge),
                unsettled=self.unsettled,
                rights_log=RightsLog(),
                rights=RightsWatch(self.look, reads_definitions=False),
                rights_messages=RightsMessages(None),
                rights_teller=RightsTeller(self.dispatcher, None, ()),
                clock=Clock(),
            )
        )

    async def nudge(self):
        pass

    async def look(self, _question):
        raise AssertionError("nobody subscribed")


def identity(start_lsn, *, system="1", is_new=False, wal_end=1_000):
    return SourceIdentity(system, 1, "slot", is_new, Lsn(start_lsn), Lsn(wal_end))


def transaction(commit_lsn):
    return empty_transaction(commit_lsn, relations=(TABLE,), row_count=1)


async def test_a_reconnect_to_the_same_slot_continues():
    kit = Kit()
    kit.inbox.source_started(identity(5))
    kit.inbox.receive_transaction(transaction(10))
    kit.inbox.source_started(identity(5))
    kit.inbox.receive_transaction(transaction(20))
    assert kit.dispatcher.told == [10, 20]
    assert kit.ring.covers(Lsn(10))
    assert not kit.preparation.is_distrusted


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (identity(30, is_new=True), "slot_recreated"),
        (identity(30), "slot_moved"),
        (identity(3, system="2", is_new=True), "history_changed"),
        (identity(5, wal_end=7), "database_behind"),
    ],
)
async def test_a_new_slot_or_another_history_forgets_what_does_not_join(after, reason):
    kit = Kit()
    kit.inbox.source_started(identity(5))
    kit.inbox.receive_transaction(transaction(10))
    kit.inbox.source_started(after)
    assert kit.dispatcher.told == [10, "restart", reason]
    assert kit.preparation.is_distrusted
    assert kit.inbox.acknowledged_lsn() == after.start_lsn
    assert not kit.ring.covers(Lsn(10))
    kit.inbox.receive_transaction(transaction(40))
    assert kit.dispatcher.told[-1] == 40


@pytest.mark.parametrize("start_lsn", [3, 5, 10, 25])
async def test_a_slot_within_what_was_received_continues(start_lsn):
    kit = Kit()
    kit.inbox.source_started(identity(5))
    kit.inbox.source_started(identity(5))
    kit.inbox.receive_transaction(transaction(10))
    kit.inbox.receive_progress(Lsn(25))
    kit.inbox.source_started(identity(start_lsn))
    kit.inbox.receive_transaction(transaction(40))
    assert kit.dispatcher.told == [10, 40]


async def test_the_slot_sends_what_nobody_can_see_yet_again_to_the_next_process():
    kit = Kit(SlotTrail(TrailBounds(transactions_max=1)))
    kit.inbox.source_started(identity(5))
    for commit_lsn in (10, 20, 30):
        kit.inbox.receive_transaction(transaction(commit_lsn))
    assert kit.inbox.acknowledged_lsn() == 10
    kit.unsettled.settle(Snapshot(1_000, 1_000, frozenset()))
    assert kit.inbox.acknowledged_lsn() == 30


async def test_what_waited_for_the_catalog_is_not_dispatched_into_another_history():
    kit = Kit()
    kit.inbox.source_started(identity(5))
    kit.preparation.needed = True
    kit.inbox.receive_transaction(transaction(100))
    kit.inbox.receive_transaction(transaction(110))

    def begin_another():
        if kit.inbox.waiting == 2:
            kit.inbox.source_started(identity(3, system="2"))
            kit.inbox.receive_transaction(transaction(20))
            kit.preparation.needed = False
            kit.preparation.gate.set()
        return not kit.inbox.waiting

    work = asyncio.create_task(kit.inbox.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while not begin_another():
            await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert kit.dispatcher.told == ["restart", "history_changed", 20]
