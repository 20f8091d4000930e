"""Whether rights stayed the same around a commit, decided from states that were read."""

import asyncio

import pytest

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.errors import UnavailableError
from heliograph.postgres.rights_state import RightsState
from heliograph.server.delivery.rights_watch import GENERAL, RightsWatch

pytestmark = pytest.mark.asyncio


def state(general="roles", lsn=1_000, xmax=50, **relations):
    by_oid = {int(name[1:]): value for name, value in relations.items()}
    return RightsState(Snapshot(xmax, xmax, frozenset()), Lsn(lsn), 0, general, by_oid)


class Database:
    """Answers looks with its state; can be made to wait or to fail."""

    def __init__(self, first):
        self.state = first
        self.looks = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def look(self, question):
        self.looks += 1
        found = self.state
        await self.gate.wait()
        if found is None:
            message = "gone"
            raise UnavailableError(message)
        wanted = {oid: found.relations[oid] for oid in question.relations}
        return RightsState(found.snapshot, found.insert_lsn, 0, found.general, wanted)


async def watching(database, *relations, reads_definitions=True):
    watch = RightsWatch(database.look, reads_definitions=reads_definitions)
    await watch.watch(relations)
    return watch


async def test_a_change_behind_the_first_look_holds_while_the_state_is_the_same():
    watch = await watching(Database(state(r5=7)), 5)
    same = state(lsn=3_000, xmax=90, r5=7)
    assert watch.held(same, commit_lsn=Lsn(2_000), xid=60, relations=[5])
    assert watch.held(same, commit_lsn=Lsn(2_000), xid=60, relations=[])
    assert not watch.compare(same)


@pytest.mark.parametrize("closing", [state(general="other", r5=7), state(r5=8)])
async def test_a_state_that_differs_does_not_hold(closing):
    watch = await watching(Database(state(r5=7)), 5)
    assert not watch.held(closing, commit_lsn=Lsn(2_000), xid=60, relations=[5])
    assert watch.compare(closing)


async def test_a_relation_that_nothing_read_does_not_matter():
    watch = await watching(Database(state(r5=7, r6=1)), 5, 6)
    closing = state(r5=7, r6=2)
    assert watch.held(closing, commit_lsn=Lsn(2_000), xid=60, relations=[5])
    assert not watch.held(closing, commit_lsn=Lsn(2_000), xid=60, relations=[5, 6])
    assert watch.compare(closing)
    assert watch.disputed() == {6}


async def test_a_relation_that_was_never_looked_at_does_not_hold():
    watch = await watching(Database(state(r5=7)), 5)
    assert not watch.held(state(r5=7), commit_lsn=Lsn(2_000), xid=60, relations=[5, 6])


async def test_what_was_visible_at_the_first_look_is_older_than_the_rights():
    watch = await watching(Database(state(r5=7)), 5)
    assert not watch.held(state(r5=7), commit_lsn=Lsn(900), xid=40, relations=[5])
    # Its commit was written, but the first look did not see it yet.
    assert watch.held(state(r5=7), commit_lsn=Lsn(900), xid=60, relations=[5])


async def test_an_adopted_state_holds_for_what_comes_behind_it():
    database = Database(state(r5=7))
    watch = await watching(database, 5)
    database.state = state(lsn=5_000, xmax=100, r5=8)
    assert watch.compare(database.state)
    watch.adopt(await watch.look(), watch.disputed())
    assert not watch.is_disputed
    assert not watch.held(database.state, commit_lsn=Lsn(4_000), xid=60, relations=[5])
    assert watch.held(database.state, commit_lsn=Lsn(6_000), xid=120, relations=[5])
    # What did not change is known since the first look.
    assert watch.held(database.state, commit_lsn=Lsn(4_000), xid=60, relations=[])


async def test_what_was_made_and_dropped_again_is_disputed_until_rights_were_read_again():
    database = Database(state(r5=7))
    watch = await watching(database, 5)
    assert watch.compare(state(lsn=3_000, xmax=60, r5=8))
    back = state(lsn=4_000, xmax=70, r5=7)
    assert watch.compare(back)
    assert not watch.held(back, commit_lsn=Lsn(3_500), xid=65, relations=[5])
    watch.adopt(back, watch.disputed())
    assert not watch.held(back, commit_lsn=Lsn(3_500), xid=65, relations=[5])
    assert watch.held(back, commit_lsn=Lsn(4_500), xid=75, relations=[5])


async def test_rights_are_read_again_only_if_something_is_disputed():
    database = Database(state(r5=7))
    watch = await watching(database, 5)
    read = []

    async def read_again():
        read.append(watch.disputed())
        watch.adopt(await watch.look(), watch.disputed())

    watch.read_again = read_again
    await watch.confirm()
    await watch.confirm(state(r5=7))
    assert read == []
    database.state = state(lsn=5_000, xmax=100, r5=8)
    await watch.confirm()
    assert read == [{5}]


async def test_with_event_triggers_only_the_general_part_is_compared():
    watch = await watching(Database(state()), 5, reads_definitions=False)
    assert not watch.must_look
    assert watch.question.relations == ()
    assert watch.held(state(), commit_lsn=Lsn(2_000), xid=60, relations=[5, 6])
    closing = state(general="other")
    assert not watch.held(closing, commit_lsn=Lsn(2_000), xid=60, relations=[5])
    assert watch.compare(closing)
    assert watch.disputed() == {GENERAL}


async def test_another_history_trusts_nothing_until_rights_were_read_again():
    database = Database(state(r5=7))
    watch = await watching(database, 5)
    watch.restart()
    assert watch.disputed() == {GENERAL, 5}
    assert not watch.held(database.state, commit_lsn=Lsn(2_000), xid=60, relations=[5])
    watch.adopt(database.state, watch.disputed())
    assert watch.held(database.state, commit_lsn=Lsn(2_000), xid=60, relations=[5])


async def test_who_asks_while_a_look_is_under_way_gets_the_next_one_together():
    database = Database(state())
    watch = await watching(database)
    database.gate.clear()
    first = asyncio.create_task(watch.look())
    while database.looks != 2:
        await asyncio.sleep(0)
    database.state = state(general="later")
    others = [asyncio.create_task(watch.look()) for _ in range(5)]
    await asyncio.sleep(0)
    database.gate.set()
    assert (await first).general == "roles"
    assert [(await other).general for other in others] == ["later"] * 5
    assert database.looks == 3


async def test_a_look_that_fails_fails_for_all_who_wait_and_for_nobody_later():
    database = Database(state())
    watch = await watching(database)
    database.state = None
    database.gate.clear()
    looks = [asyncio.create_task(watch.look()) for _ in range(4)]
    while database.looks != 2:
        await asyncio.sleep(0)
    database.gate.set()
    for found in await asyncio.gather(*looks, return_exceptions=True):
        assert isinstance(found, UnavailableError)
    # The first one, and one for the three that asked meanwhile.
    assert database.looks == 3
    database.state = state()
    assert (await watch.look()).general == "roles"


async def test_a_look_that_was_cut_off_is_no_answer_for_those_who_waited_for_it():
    database = Database(state(general="old"))
    watch = await watching(database)
    database.gate.clear()
    first, second, third = (asyncio.create_task(watch.look()) for _ in range(3))
    await wait_for_looks(database, 2)
    database.state = state(general="new")
    release, database.gate = database.gate, asyncio.Event()
    release.set()
    await first
    await wait_for_looks(database, 3)
    second.cancel()
    database.gate.set()
    assert (await third).general == "new"


async def wait_for_looks(database, count):
    async with asyncio.timeout(5):
        while database.looks < count:
            await asyncio.sleep(0)
