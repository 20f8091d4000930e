"""Links to PostgreSQL that are reset, on the event loop that the server runs on.

uvloop tells once that a socket which was reset can be read, and never again.
"""

import pytest
import uvloop

from fixtures.black_hole import black_hole
from fixtures.reader import Database, RecordingSink, make_source, running
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.postgres]


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_link_that_is_reset_behind_a_backlog_is_noticed_at_once(postgres_url, size):
    """In many frames, and in one of which a part has come."""
    uvloop.run(read_across_a_reset(postgres_url, size))


async def read_across_a_reset(url, size):
    database = Database(url)
    database.run("create table notes (id int primary key, body text)")
    database.run("alter table notes alter body set storage external")
    database.publish("notes")
    sink = RecordingSink()
    async with black_hole(url) as relay, running(make_source(relay.url), sink):
        sink.stall()
        database.run("insert into notes values (0, 'x')")
        await wait_until(lambda: sink.waiting_for_room)
        relayed = relay.relayed
        statement = "insert into notes select n, repeat('x', {}) from generate_series(1, {}) n"
        database.run(statement.format(size, 2_000_000 // size))
        # In the reader's socket, which it does not read now.
        await wait_until(lambda: relay.relayed - relayed > 200_000)
        relay.reset()
        sink.resume()
        await wait_until(lambda: len(sink.transactions) == 2)
    database.close()
    assert sink.events == ["started", "lost", "started"]
