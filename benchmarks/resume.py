"""What it takes to go on where one was: clients that come back, and a server that was restarted.

Usage: make bench NAME=resume. Two parts against the real server.

``catching up``: clients that keep positions are cut off, rows are committed in transactions of one,
and all come back at once. Measured is the time until each has every change and a position behind
the last; compared within the run are the same rows delivered live to the same clients, and read by
a SELECT for each of them (a sample, one after the other). A subscriber of another table who never
left is told 50 changes a second meanwhile: its delays stand beside those of a quiet moment. With
`--variant decode_each` every client decodes the ring for itself.

``filling the ring again``: the server is killed and started again, and PostgreSQL sends what the
slot has held back. Measured is the time from the start of the stream to the last transaction in the
ring, for the bounds of `limits.SLOT_TRAIL_…`; compared is a loop that only receives the same.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import _bystander
from _bystander import Bystander, steady_writer
from _native import cpu_s
from _results import machine, write_results
from _resumers import Resumers
from wal_drain import make_slot, receive_only

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

POSTGRES = 18
DEADLINE_S = 150.0
QUIET_S = 2.0
SELECTS = 20
SETTLED_S = 1.5
SETTINGS = {"wal_sender_timeout": "0", "max_wal_size": "4GB"}
VARIANT = [sys.executable, str(Path(__file__).with_name("_server_variant.py"))]
#: What design and limits promise for each bound.
REPLAY_GOAL_S = 3.0

SCHEMA = """
create table drain (id bigserial primary key, team text default 'a', shop text,
    at timestamptz default now(), title text default 'a title of some length',
    amount numeric default 12.5, note text);
create index on drain (shop);
alter table drain enable row level security;
create policy own on drain for select to authenticated using (team = (auth.jwt() ->> 'team'));
alter publication supabase_realtime add table drain;
create table elsewhere (id bigserial primary key, note text);
"""
WRITE = """
do $$ begin
  for number in 1..{transactions} loop
    insert into drain (shop, note) values ('shop ' || number % 100, {note});
    commit;
  end loop;
end $$
"""
#: Commits rows of nobody's table in transactions of 1,000.
WRITE_ELSEWHERE = """
do $$ begin
  for number in 1..{transactions} loop
    insert into elsewhere (note) select 'a note' from generate_series(1, 1000);
    commit;
  end loop;
end $$
"""
#: 32 kB that do not compress.
LARGE_NOTE = "(select string_agg(md5(random()::text), '') from generate_series(1, 1024))"


class Case(NamedTuple):
    """Who comes back, and to what.

    Attributes:
        clients: How many.
        users: Different tokens; 0 for the service role, for whom nothing is judged.
        transactions: Committed meanwhile.
        shops: Each client filters by one of so many shops; None: it wants every row.
    """

    clients: int
    users: int
    transactions: int
    shops: int | None = None


CASES = {
    "service role, 1,000 clients, 200 transactions": Case(1_000, 0, 200),
    "service role, 20 clients, 10,000 transactions": Case(20, 0, 10_000),
    "one row in 100 is theirs, 1,000 clients, 300 transactions": Case(1_000, 0, 300, shops=100),
    "one user, 1,000 clients, 20 transactions": Case(1_000, 1, 20),
    "100 users, 1,000 clients, 20 transactions": Case(1_000, 100, 20),
}


def transactions_of(server):
    return server.metrics()["heliograph_transactions_total"]


def wait_for_transactions(server, wanted):
    deadline_s = time.monotonic() + DEADLINE_S
    while transactions_of(server) < wanted:
        if time.monotonic() > deadline_s:
            sys.exit(f"{wanted} transactions were not received in time")
        time.sleep(0.02)


class Measured:
    """Time, processor time of the server, and what happened in a block."""

    def __init__(self, server):
        self._server = server
        self.began_s = time.time()
        self._began_monotonic_s = time.monotonic()
        self._before_cpu_s = cpu_s(server.process.pid)

    def end(self, events):
        self.ended_s = time.time()
        seconds = time.monotonic() - self._began_monotonic_s
        used_s = cpu_s(self._server.process.pid) - self._before_cpu_s
        return {
            "seconds": round(seconds, 2),
            "events": events,
            "events_per_s": round(events / seconds),
            "cpu_us_per_event": round(used_s / events * 1e6, 1),
        }


def events_of(case):
    """Return the changes that each client must get."""
    return case.transactions // (case.shops or 1)


def tokens_of(server, case):
    users = [server.token(f"user-{n}", team="a", shop="a") for n in range(case.users)]
    return users or [server.service_role_key]


def clients_of(case):
    """Return the number of its token and the filter of each client."""
    shops, tokens = case.shops or 1, max(1, case.users)
    return [
        (n % tokens, f"shop=eq.shop {n % shops}" if case.shops else None)
        for n in range(case.clients)
    ]


def told_live(server, case, resumers, write):
    """Have a backlog of the same rows delivered to the clients, who are there."""
    server.process.send_signal(signal.SIGSTOP)
    server.sql(write)
    measured = Measured(server)
    server.process.send_signal(signal.SIGCONT)
    resumers.ask("await", events=events_of(case))
    return measured.end(events_of(case) * case.clients)


def come_back(server, case, resumers, bystander, write):
    """Have the clients cut off, miss the rows and come back at once."""
    resumers.ask("cut")
    before = server.metrics()
    server.sql(write)
    wait_for_transactions(server, before["heliograph_transactions_total"] + case.transactions)
    with steady_writer(server, _bystander.RATE, "insert into beat default values"):
        time.sleep(1.0)
        quiet_s = time.time()
        time.sleep(QUIET_S)
        measured = Measured(server)
        found = resumers.ask("connect", events=events_of(case))
        resumed = measured.end(found["events"])
        time.sleep(1.0)
    resumes = server.metrics()["heliograph_resumes_total"] - before["heliograph_resumes_total"]
    is_exact = found["events"] == events_of(case) * case.clients
    if found["resyncs"] or resumes < case.clients or not is_exact:
        sys.exit(f"not everybody went on where he was: {found}")
    return {
        "resumed": resumed,
        "subscribed_s": rounded(found["subscribed_s"]),
        "caught_up_s": rounded(found["caught_up_s"]),
        "who_never_left": {
            "quiet": bystander.noticed(quiet_s, measured.began_s),
            "meanwhile": bystander.noticed(measured.began_s, measured.ended_s),
        },
    }


def rounded(first_median_last):
    return [round(seconds, 2) for seconds in first_median_last]


def measure(server, case):
    """Have the clients of a case told the same live, and after they were away."""
    write = WRITE.format(transactions=case.transactions, note="'a note'")
    tokens = tokens_of(server, case)
    resumers = Resumers(server, clients_of(case), tokens, "drain", DEADLINE_S)
    bystander = Bystander(server, tokens[0])
    try:
        joined = resumers.ask("connect", events=0)
        live = told_live(server, case, resumers, write)
        ((last_id,),) = query(server, "select max(id) from drain")
        found = come_back(server, case, resumers, bystander, write)
    finally:
        bystander.close()
        resumers.close()
    resumed, selects_s = found["resumed"], select_s(server, case, last_id) * case.clients
    return {
        "resumed_to_live": round(resumed["seconds"] / live["seconds"], 2),
        "cpu_resumed_to_live": round(resumed["cpu_us_per_event"] / live["cpu_us_per_event"], 2),
        "resumed_to_selects": round(resumed["seconds"] / selects_s, 2),
        **found,
        "first_join_s": rounded(joined["subscribed_s"]),
        "live": live,
        "selects_s": round(selects_s, 2),
    }


def query(server, statement):
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def select_s(server, case, last_id):
    """Return the seconds in which one client reads the rows that it missed, as one JSON value."""
    role = "authenticated" if case.users else "service_role"
    claims = json.dumps({"role": role, "team": "a"})
    condition = "and shop = 'shop 1'" if case.shops else ""
    statement = f"""
        select json_agg(missed) from
          (select * from drain where id > {last_id} {condition} order by id) missed
    """
    with psycopg.connect(server.database_url) as connection:
        began = time.monotonic()
        for _ in range(SELECTS):
            connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
            connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
            connection.execute(statement).fetchall()
            connection.rollback()
        return (time.monotonic() - began) / SELECTS


# --- filling the ring again -------------------------------------------------------------------


class Backlog(NamedTuple):
    """What is sent again.

    Attributes:
        transactions: Of one row each.
        note: What makes its size.
        elsewhere: Transactions of 1,000 rows of a table that is not published, before it.
    """

    transactions: int
    note: str = "'a note'"
    elsewhere: int = 0


BACKLOGS = {
    "100,000 transactions": Backlog(100_000),
    "64 MB of rows": Backlog(2_000, LARGE_NOTE),
    "128 MB of WAL of others": Backlog(10, elsewhere=1_100),
}


def refill(cluster, backlog):
    """Kill a server behind a backlog; return what the next one makes of it."""
    url = cluster.create_database()
    with tempfile.TemporaryDirectory() as folder:
        with run_server(url, Path(folder)) as server:
            server.sql(SCHEMA)
            make_slot(server, "bare")
            wal_bytes = written(server, backlog)
            # The slot is told every now and then how far the ring would have to be filled.
            time.sleep(SETTLED_S)
            server.stop(signal.SIGKILL)
        with run_server(url, Path(folder)) as server:
            measured = Measured(server)
            wait_for_transactions(server, backlog.transactions)
            used = measured.end(backlog.transactions)
            ring_bytes = server.metrics()["heliograph_ring_bytes"]
            received_s = receive_only(server, "bare", backlog.transactions - 1)
            server.sql("select pg_drop_replication_slot('bare')")
    filled_s = used["seconds"]
    return {
        "filled_to_received_only": round(filled_s / received_s, 2),
        "filled_to_goal": round(filled_s / REPLAY_GOAL_S, 2),
        "filled_s": round(filled_s, 2),
        "received_only_s": round(received_s, 2),
        "cpu_s": round(used["cpu_us_per_event"] * backlog.transactions / 1e6, 2),
        "ring_mb": round(ring_bytes / 1e6, 1),
        "wal_mb": round(wal_bytes / 1e6, 1),
    }


def written(server, backlog):
    """Write a backlog and wait until it was received; return the bytes of WAL."""
    before = transactions_of(server)
    ((begin,),) = query(server, "select pg_current_wal_lsn()")
    if backlog.elsewhere:
        server.sql(WRITE_ELSEWHERE.format(transactions=backlog.elsewhere))
    server.sql(WRITE.format(transactions=backlog.transactions, note=backlog.note))
    ((end,),) = query(server, "select pg_current_wal_lsn()")
    wait_for_transactions(server, before + backlog.transactions)
    ((wal_bytes,),) = query(server, f"select pg_wal_lsn_diff('{end}', '{begin}')::bigint")
    return wal_bytes


def show(name, found):
    """Print the ratios, then everything else."""
    ratios = {key: value for key, value in found.items() if "_to_" in key}
    print(name, *(f"  {key}: {value}" for key, value in ratios.items()), sep="\n")
    rest = {key: value for key, value in found.items() if key not in ratios}
    print(f"  {json.dumps(rest)}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["clients", "ring"], help="one of the two parts")
    parser.add_argument("--variant", help="a part of the server that is replaced")
    wanted = parser.parse_args()
    program = [*VARIANT, wanted.variant] if wanted.variant else ()
    about = machine(POSTGRES)
    results = {"catching up": {}, "filling the ring": {}}
    with run_test_cluster(binaries_of(POSTGRES), SETTINGS) as cluster:
        if wanted.only != "ring":
            with tempfile.TemporaryDirectory() as folder:
                with run_server(cluster.create_database(), Path(folder), program=program) as server:
                    server.sql(SCHEMA, _bystander.SCHEMA)
                    for name, case in CASES.items():
                        results["catching up"][name] = found = measure(server, case)
                        show(name, found)
        if wanted.only != "clients":
            for name, backlog in BACKLOGS.items():
                results["filling the ring"][name] = found = refill(cluster, backlog)
                show(name, found)
    write_results("resume", {**results, "machine": about})


if __name__ == "__main__":
    main()
