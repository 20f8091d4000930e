"""Dropping the slot that holds back too much WAL, whoever uses it."""

from collections.abc import Iterator

import psycopg
import pytest
from structlog.testing import capture_logs

from fixtures.reader import Database, RecordingSink, make_source, running, slot_name
from fixtures.waiting import wait_until
from heliograph.config import Secret
from heliograph.postgres.slot_limit import SlotLimit, smaller_limit

pytestmark = pytest.mark.postgres


@pytest.fixture
def database(postgres_url) -> Iterator[Database]:
    database = Database(postgres_url)
    database.run("create table notes (id int primary key, body text)")
    database.publish("notes")
    yield database
    database.close()


def limit_of(database, bytes_max=100):
    return SlotLimit(Secret(database.url), slot_name(database.url), bytes_max)


@pytest.mark.asyncio
async def test_the_slot_of_a_reader_is_dropped_and_the_reader_makes_it_anew(database):
    sink = RecordingSink()
    limit = limit_of(database)
    async with running(make_source(database.url), sink):
        database.run("insert into notes values (1, 'x')")
        await wait_until(lambda: sink.transactions)
        await limit.enforce(100)
        assert (limit.drops, len(sink.identities)) == (0, 1)
        await limit.enforce(101)
        assert limit.drops == 1
        await wait_until(lambda: sink.identities[-1].slot_is_new and len(sink.identities) > 1)
        database.run("insert into notes values (2, 'x')")
        await wait_until(lambda: len(sink.transactions) == 2)


@pytest.mark.asyncio
async def test_a_slot_that_is_not_in_use_is_dropped_and_one_that_is_gone_is_none(database):
    async with running(make_source(database.url), RecordingSink()):
        pass
    limit = limit_of(database)
    await limit.enforce(101)
    assert database.slot("slot_name") is None
    await limit.enforce(101)
    assert limit.drops == 2


@pytest.mark.asyncio
async def test_without_a_limit_nothing_is_dropped(database):
    async with running(make_source(database.url), RecordingSink()):
        await limit_of(database, 0).enforce(1 << 60)
        assert database.slot("active")


@pytest.mark.asyncio
async def test_a_slot_in_other_hands_is_left_alone_and_that_is_said(database):
    async with running(make_source(database.url), RecordingSink()):
        pass
    await wait_until(lambda: not database.slot("active"))
    limit = limit_of(database)
    statement = f"START_REPLICATION SLOT {slot_name(database.url)} LOGICAL 0/0"
    options = "(proto_version '1', publication_names '\"test publication\"')"
    with psycopg.connect(database.url, autocommit=True, replication="database") as foreign:
        foreign.execute(f"{statement} {options}")
        with capture_logs() as log:
            await limit.enforce(101)
        assert limit.drops == 0
        assert database.slot("active_pid") == foreign.info.backend_pid
        (said,) = log
        assert said["event"] == "slot_not_dropped"
        assert str(foreign.info.backend_pid) in said["reason"]
        foreign.close()


def test_the_limit_that_is_reached_first_counts():
    assert smaller_limit(None, 0) is None
    assert smaller_limit(5, 0) == 5
    assert smaller_limit(None, 7) == 7
    assert smaller_limit(5, 7) == 5
    assert smaller_limit(9, 7) == 7
