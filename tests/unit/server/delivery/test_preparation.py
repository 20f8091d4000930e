"""Reading the catalog again when it can not be read, or when another history begins."""

import contextlib

import pytest

from fixtures.transactions import empty_transaction
from heliograph import limits
from heliograph.core.replication.lsn import MAX_LSN, ZERO_LSN, Lsn
from heliograph.core.replication.relation import Relation, ReplicaIdentity
from heliograph.core.replication.snapshot import Snapshot
from heliograph.errors import UnavailableError
from heliograph.postgres.rights_state import RightsState
from heliograph.server.delivery import preparation as module
from heliograph.server.delivery.late_writers import LateWriters
from heliograph.server.delivery.preparation import Preparation, PreparationParts
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_messages import DefinitionChange
from heliograph.server.delivery.rights_watch import RightsWatch
from heliograph.server.delivery.serving import ServingRules

pytestmark = pytest.mark.asyncio

TABLE = Relation(7, "public", "notes", ReplicaIdentity.FULL, ())
DEFINITIONS = DefinitionChange(is_general=True)


class Entry:
    valid_since = Lsn(5_000)


class Database:
    """A catalog that answers when told to; plays admin, registry and dispatcher."""

    def __init__(self):
        self.index = self
        self.entry_of_notes = Entry()
        self.sees_up_to = 0
        self.is_down = False
        self.read = []
        self.roles = "roles"
        self.when_read = lambda: None

    def _answer(self):
        if self.is_down:
            message = "gone"
            raise UnavailableError(message)

    @contextlib.asynccontextmanager
    async def connection(self):
        self._answer()
        yield None

    async def take_position(self):
        self._answer()
        return Snapshot(self.sees_up_to, self.sees_up_to, frozenset()), Lsn(10)

    async def look(self, _question):
        self._answer()
        snapshot = Snapshot(self.sees_up_to, self.sees_up_to, frozenset())
        return RightsState(snapshot, Lsn(10), 0, self.roles, {})

    def entry(self, oid):
        return self.entries().get(oid)

    def entries(self):
        return {TABLE.oid: self.entry_of_notes}

    async def reload(self, oid, _valid_since):
        self._answer()
        self.read.append(oid)
        self.when_read()
        return self.entry_of_notes

    async def changed_partitions(self):
        return []

    def groups(self, _oid):
        return ()

    def definitions_changed(self):
        pass

    def forget_kept(self, tables=None):
        pass


@pytest.fixture
def database():
    return Database()


@pytest.fixture
def rights(database):
    return RightsWatch(database.look, reads_definitions=False)


@pytest.fixture
def preparation(database, rights, monkeypatch):
    monkeypatch.setattr(limits, "CATALOG_RETRY_S", 0)
    progress = StreamProgress(request=lambda: None, nudge=None)
    progress.advance(Lsn(MAX_LSN))
    return Preparation(
        PreparationParts(
            admin=database,
            registry=database,
            dispatcher=database,
            rights_log=RightsLog(),
            rights=rights,
            progress=progress,
            dependencies=database,
            rules=ServingRules(),
            late_writers=LateWriters(None),
        )
    )


async def test_a_transaction_of_a_history_that_ended_is_not_waited_for(preparation, database):
    # A restored database: the transaction is never visible, its number was not given out yet.
    database.is_down = True
    asked = []

    def is_wanted():
        asked.append(None)
        return len(asked) < 3

    await preparation.prepare(empty_transaction(100), DEFINITIONS, is_wanted)
    assert len(asked) == 3
    assert database.read == []


async def test_rights_hold_from_the_start_of_another_history_on(preparation, database):
    preparation.distrust()
    assert database.entry_of_notes.valid_since == ZERO_LSN
    assert preparation.is_needed(empty_transaction(3), None)
    database.sees_up_to = 50
    await preparation.prepare(empty_transaction(3), None, lambda: True)
    assert database.read == [TABLE.oid]
    assert not preparation.is_needed(empty_transaction(4), None)


async def test_a_fingerprint_counts_only_once_rights_were_read(preparation, database, monkeypatch):
    fingerprint = "first"

    async def read_fingerprint(_connection):
        return fingerprint

    monkeypatch.setattr(module, "rights_fingerprint", read_fingerprint)
    await preparation.check()
    fingerprint = "second"
    reload, database.reload = database.reload, None

    async def fail(_oid, _valid_since):
        message = "gone"
        raise UnavailableError(message)

    database.reload = fail
    with pytest.raises(UnavailableError):
        await preparation.check()
    database.reload = reload
    await preparation.check()
    assert database.read == [TABLE.oid]
    await preparation.check()
    assert database.read == [TABLE.oid]


async def test_rights_read_while_a_membership_exists_for_a_moment_are_read_again(
    preparation, database, rights
):
    await rights.watch([TABLE.oid])
    database.roles = "a member"
    database.sees_up_to = 50

    def end_membership():
        database.roles = "roles"
        database.when_read = lambda: None

    database.when_read = end_membership
    await preparation.prepare(empty_transaction(3), DEFINITIONS, lambda: True)
    # Once while it existed, and once more because of that.
    assert database.read == [TABLE.oid] * 2
    assert not rights.is_disputed
