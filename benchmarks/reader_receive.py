"""What receiving the stream costs by itself: psycopg's pq level, psycopg2, and pg_recvlogical.

Usage: make bench NAME=reader_receive. Each receives the same backlog from a slot of its own and
does nothing with it. psycopg2 is no dependency: it is left out where it is not installed.
"""

import argparse
import contextlib
import importlib
import resource
import select
import subprocess
import time
from types import SimpleNamespace

import psycopg
from wal_drain import (
    POSTGRES,
    SCHEMA,
    SETTINGS,
    binaries_of,
    make_slot,
    receive_only,
    run_test_cluster,
    write_backlog,
)

OPTIONS = {"proto_version": "1", "publication_names": "supabase_realtime"}


def receive_psycopg2(database, slot, rows):
    """Receive with the replication cursor of psycopg2."""
    psycopg2 = importlib.import_module("psycopg2")
    extras = importlib.import_module("psycopg2.extras")
    factory = extras.LogicalReplicationConnection
    connection = psycopg2.connect(database.database_url, connection_factory=factory)
    with contextlib.closing(connection):
        cursor = connection.cursor()
        cursor.start_replication(slot_name=slot, options=OPTIONS)
        seen = 0
        while seen <= rows:
            message = cursor.read_message()
            if message is None:
                select.select([cursor], [], [], 1.0)
            else:
                seen += message.payload[:1] == b"I"


def receive_pg_recvlogical(database, slot, _rows):
    """Receive with PostgreSQL's own program, into nothing."""
    with psycopg.connect(database.database_url) as connection:
        ((end,),) = connection.execute("select pg_current_wal_flush_lsn()::text")
    options = [part for name in OPTIONS for part in ("-o", f"{name}={OPTIONS[name]}")]
    program = str(binaries_of(POSTGRES).bin_dir / "pg_recvlogical")
    place = ["-d", database.database_url, "--slot", slot, "--endpos", end, "-f", "/dev/null"]
    subprocess.run([program, *place, "--start", "--no-loop", *options], check=True)


RECEIVERS = {
    "psycopg 3, pq": receive_only,
    "psycopg2": receive_psycopg2,
    "pg_recvlogical": receive_pg_recvlogical,
}


def used_s():
    """Return the processor time of this process and of those it has started."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def measure(database, rows, batch, round_number):
    """Write one backlog, and print what each receiver makes of it."""
    slots = {
        name: f"receive_{batch}_{round_number}_{place}" for place, name in enumerate(RECEIVERS)
    }
    for slot in slots.values():
        make_slot(database, slot)
    write_backlog(database, (2 * round_number + (batch > 1)) * 10_000_000 + 10, rows, batch)
    for name, receive in RECEIVERS.items():
        began, before_s = time.monotonic(), used_s()
        try:
            receive(database, slots[name], rows)
        except ModuleNotFoundError:
            print(f"{name}: not installed")
            continue
        passed_s, spent_s = time.monotonic() - began, used_s() - before_s
        print(
            f"transactions of {batch}, {name}: {rows / passed_s:,.0f} rows/s,"
            f" {spent_s / rows * 1e6:.1f} µs CPU per row"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    wanted = parser.parse_args()
    with run_test_cluster(binaries_of(POSTGRES), SETTINGS) as cluster:
        url = cluster.create_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create publication supabase_realtime")
            connection.execute(SCHEMA)

            def run(*statements):
                for statement in statements:
                    connection.execute(statement)

            database = SimpleNamespace(database_url=url, sql=run)
            for round_number in range(wanted.rounds):
                for batch in (1, 100):
                    measure(database, wanted.rows, batch, round_number)


if __name__ == "__main__":
    main()
