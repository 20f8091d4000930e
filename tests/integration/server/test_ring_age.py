"""How long the values of rows stay in the server's memory."""

import time

from fixtures.server import TestServer

SCHEMA = """
create table notes (id int primary key, title text);
alter publication supabase_realtime add table notes;
"""


def wait_kept(server: TestServer, *, taken: int, left: int) -> None:
    """Wait until a number of transactions was taken and at most another number is kept."""
    deadline_s = time.monotonic() + 20
    while True:
        metrics = server.metrics()
        kept = metrics["heliograph_ring_transactions"]
        if metrics["heliograph_transactions_total"] >= taken and kept <= left:
            return
        assert time.monotonic() < deadline_s, f"{kept} transactions are kept"
        time.sleep(0.05)


def test_the_ring_keeps_nothing_beyond_its_age_on_an_idle_database(start_server) -> None:
    server = start_server(HELIOGRAPH_RING_AGE_S_MAX="1")
    server.sql(SCHEMA)
    before = server.metrics()["heliograph_transactions_total"]
    server.sql("insert into notes values (1, 'a secret')")
    wait_kept(server, taken=int(before) + 1, left=0)
