"""How fast a prepared backlog of WAL reaches a socket, in one-row transactions and in batches.

Usage: make bench NAME=wal_drain. The server has subscribers and is stopped (SIGSTOP) while the
backlog is written, so that nothing of it was read; measured is from its continuation to the last
frame at one cheap subscriber with the service role (`delivered`), and to the last transaction in
the ring with nobody subscribed (`kept`). What is compared within the run is a bare psycopg loop
that only receives the same backlog from a slot of its own (`received`).
"""

import argparse
import contextlib
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from _cheap_subscriber import CheapSubscriber
from _native import cpu_s
from _results import machine, write_results

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

SCHEMA = """
create table drain (id bigint primary key, owner uuid, at timestamptz default now(), title text,
                    amount numeric, done boolean, note text, kind int);
alter publication supabase_realtime add table drain;
"""
WRITE = """
do $$ begin
  for begin_at in {first} .. {last} by {batch} loop
    insert into drain (id, owner, title, amount, done, note, kind)
    select n, '00000000-0000-0000-0000-00000000000a', 'title ' || n, n / 7.0, n % 2 = 0, 'a note',
           n % 10 from generate_series(begin_at, begin_at + {batch} - 1) n;
    commit;
  end loop;
  insert into drain (id, title) values ({first} - 1, 'the end');
end $$
"""
GOALS = {"one-row": 40_000, "batches of 100": 100_000}
POSTGRES = 18
#: For one backlog to be received, delivered or kept.
DEADLINE_S = 300.0
#: Each look at the metrics costs the loop that is measured some time.
LOOK_INTERVAL_S = 0.5
SETTINGS = {"wal_sender_timeout": "0", "max_wal_size": "4GB"}


def write_backlog(server, first, rows, batch):
    """Write transactions of ``batch`` rows, and one that ends the backlog."""
    last = first + rows - 1
    server.sql(WRITE.format(first=first, last=last, batch=batch))


def receive_only(server, slot, rows):
    """Receive the backlog with psycopg's pq level and do nothing with it."""
    connection = psycopg.connect(server.database_url, autocommit=True, replication="database")
    with contextlib.closing(connection):
        connection.execute(
            sql.SQL(
                "START_REPLICATION SLOT {} LOGICAL 0/0"
                " (proto_version '1', publication_names 'supabase_realtime')"
            ).format(sql.Identifier(slot))
        )
        pgconn, began, seen = connection.pgconn, time.monotonic(), 0
        pgconn.nonblocking = 1
        while seen <= rows:
            if time.monotonic() > began + DEADLINE_S:
                sys.exit(f"{seen} of {rows} rows were received within {DEADLINE_S:.0f} s")
            size, frame = pgconn.get_copy_data(1)
            if size > 0:
                seen += frame[0] == ord("w") and frame[25] == ord("I")
            else:
                select.select([pgconn.socket], [], [], 1.0)
                pgconn.consume_input()
        return time.monotonic() - began


def stopped(server):
    """Stop the server's process until it is continued."""
    server.process.send_signal(signal.SIGSTOP)


def went_on(server):
    server.process.send_signal(signal.SIGCONT)
    return time.monotonic()


def processor_s(server):
    return cpu_s(server.process.pid)


def make_slot(server, slot):
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))


def measure(server, rows, batch, first):
    """Drain one backlog twice: by a subscriber, and by the ring alone."""
    transactions = rows // batch + 1
    subscriber = CheapSubscriber(server, server.service_role_key, "drain")
    make_slot(server, f"bare_{batch}")
    stopped(server)
    write_backlog(server, first, rows, batch)
    used_s = processor_s(server)
    began = went_on(server)
    frames = subscriber.count(b'"the end"', began + DEADLINE_S)
    delivered_s = time.monotonic() - began
    delivered_cpu_s = processor_s(server) - used_s
    subscriber.socket.close()
    if frames != rows + 1:
        message = f"{frames} frames arrived instead of {rows + 1}"
        raise SystemExit(message)
    received_s = receive_only(server, f"bare_{batch}", rows)
    before = kept(server)
    stopped(server)
    write_backlog(server, first + 10_000_000, rows, batch)
    used_s = processor_s(server)
    began = went_on(server)
    wait_kept(server, before, before + transactions)
    kept_s = time.monotonic() - began
    return {
        "rows": rows,
        "transactions": transactions,
        "received_rows_per_s": round(rows / received_s),
        "delivered_rows_per_s": round(rows / delivered_s),
        "kept_rows_per_s": round(rows / kept_s),
        "delivered_to_received": round(received_s / delivered_s, 2),
        "kept_to_received": round(received_s / kept_s, 2),
        "cpu_us_per_row_delivered": round(delivered_cpu_s / rows * 1e6, 1),
        "cpu_us_per_row_kept": round((processor_s(server) - used_s) / rows * 1e6, 1),
    }


def kept(server):
    return server.metrics()["heliograph_transactions_total"]


def wait_kept(server, before, wanted):
    """Wait for a number of transactions: two looks a second, and one when it should be reached."""
    began = time.monotonic()
    while (found := kept(server)) < wanted:
        passed_s = time.monotonic() - began
        if passed_s > DEADLINE_S:
            sys.exit(f"{wanted - found:.0f} transactions were not kept within {DEADLINE_S:.0f} s")
        left_s = (wanted - found) * passed_s / max(1, found - before)
        time.sleep(min(LOOK_INTERVAL_S, max(0.02, left_s)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--single", type=int, default=200_000, help="one-row transactions")
    parser.add_argument("--batched", type=int, default=500_000, help="rows in transactions of 100")
    wanted = parser.parse_args()
    about, results = machine(POSTGRES), {}
    with run_test_cluster(binaries_of(POSTGRES), SETTINGS) as cluster:
        with tempfile.TemporaryDirectory() as folder:
            with run_server(cluster.create_database(), Path(folder)) as server:
                server.sql(SCHEMA)
                results["one-row"] = measure(server, wanted.single, 1, 1_000_000)
                results["batches of 100"] = measure(server, wanted.batched, 100, 50_000_000)
                metrics = server.metrics()
    for name, result in results.items():
        print(
            f"{name}: delivered / received only: {result['delivered_to_received']:.2f};"
            f" kept, nobody subscribed / received only: {result['kept_to_received']:.2f}"
        )
        print(f"  {result}  (goal: {GOALS[name]} rows/s delivered)")
    resyncs = sum(v for k, v in metrics.items() if k.startswith("heliograph_resyncs_total"))
    print(f"catch-ups: {metrics['heliograph_catch_ups_total']:.0f}; resyncs: {resyncs:.0f}")
    write_results("wal_drain", {**results, "machine": about})


if __name__ == "__main__":
    main()
