"""Everybody is cut off and comes back at once: 5,000 sockets that go on where they were.

Usage: make bench NAME=reconnect_storm. The clients keep positions; rows are committed all the time.
All connections are reset in one moment, and every client connects, joins with its last position and
tries again when it is refused. Measured is the time until all are live, against the first time that
the same clients joined; how many were refused on the way; how many transactions the server's
database was asked for each of them (by pg_stat_database, less what is usual in a quiet moment); the
server's memory; and what a subscriber of another table who never left is told late meanwhile.

service role   nobody is judged, every client gets every row
users          each client is another user, whose policies PostgreSQL judges, and filters by its id
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import _bystander
from _bystander import Bystander, steady_writer
from _native import cpu_s
from _results import machine, write_results
from _resumers import Resumers

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

CLIENTS, PROCESSES, ROUNDS = 5_000, 2, 1
POSTGRES = 18
DEADLINE_S = 150.0
#: PostgreSQL's backends report their transactions after ten idle seconds at the latest.
REPORT_S = 11.0
SCHEMA = """
create table ticks (id bigserial primary key, owner int);
alter table ticks enable row level security;
create policy own on ticks for select to authenticated
  using (owner = (auth.jwt() ->> 'number')::int);
alter publication supabase_realtime add table ticks;
"""
#: Rows a second: with the service role each is a frame for every client.
RATES = {"service role": 2, "users": 50}
WRITE = f"insert into ticks (owner) values (floor(random() * {CLIENTS})::int)"


def transactions(server):
    """Return how many the server's database has had, once all were reported."""
    time.sleep(REPORT_S)
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        ((found,),) = connection.execute(
            "select xact_commit + xact_rollback from pg_stat_database"
            " where datname = current_database()"
        ).fetchall()
    return int(found), time.monotonic()


def resident_mb(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def start_clients(server, kind):
    """Start the processes, each with its part of the clients."""
    started = []
    for first in range(0, CLIENTS, CLIENTS // PROCESSES):
        numbers = range(first, first + CLIENTS // PROCESSES)
        if kind == "users":
            tokens = [server.token(f"user-{n}", number=str(n), shop="a") for n in numbers]
            clients = [(place, f"owner=eq.{n}") for place, n in enumerate(numbers)]
        else:
            tokens, clients = [server.service_role_key], [(0, None) for _ in numbers]
        started.append(Resumers(server, clients, tokens, "ticks", DEADLINE_S))
    return started


def together(processes, command, **details):
    """Give all the same command at once; return their answers."""
    for process in processes:
        process.say(command, **details)
    return [process.answer() for process in processes]


def connect(server, processes):
    """Have everybody join; return what it took."""
    used_s = cpu_s(server.process.pid)
    began_s = time.time()
    answers = together(processes, "connect", events=0)
    ended_s = time.time()
    seconds = max(answer["caught_up_s"][-1] for answer in answers)
    resyncs = {}
    for answer in answers:
        for reason, count in answer["resyncs"].items():
            resyncs[reason] = resyncs.get(reason, 0) + count
    return {
        "all_live_s": round(seconds, 2),
        "joins_per_s": round(CLIENTS / seconds),
        "median_live_s": round(max(answer["caught_up_s"][1] for answer in answers), 2),
        "refused_joins": sum(answer["refused_joins"] for answer in answers),
        "closed_sockets": sum(answer["closed_sockets"] for answer in answers),
        "unanswered": sum(answer["unanswered"] for answer in answers),
        "resyncs": resyncs,
        "server_cpu_s": round(cpu_s(server.process.pid) - used_s, 2),
    }, (began_s, ended_s)


def storm(server, processes, bystander):
    """Cut everybody off, and have all come back at once."""
    usual, usual_s = transactions(server)
    before, before_s = transactions(server)
    per_s = (before - usual) / (before_s - usual_s)
    resumes = server.metrics()["heliograph_resumes_total"]
    quiet = (time.time() - 5.0, time.time())
    memory_mb = resident_mb(server)
    together(processes, "cut")
    found, meanwhile = connect(server, processes)
    after, after_s = transactions(server)
    asked = after - before - per_s * (after_s - before_s)
    return {
        **found,
        "resumed": int(server.metrics()["heliograph_resumes_total"] - resumes),
        "transactions_per_client": round(asked / CLIENTS, 3),
        "memory_mb": [memory_mb, resident_mb(server)],
        "who_never_left": {
            "quiet": bystander.noticed(*quiet),
            "meanwhile": bystander.noticed(*meanwhile),
        },
    }


def measure(cluster, kind):
    with tempfile.TemporaryDirectory() as folder:
        with run_server(cluster.create_database(), Path(folder)) as server:
            server.sql(SCHEMA, _bystander.SCHEMA)
            processes = start_clients(server, kind)
            is_judged = kind == "users"
            token = server.token("user-0", shop="a") if is_judged else server.service_role_key
            bystander = Bystander(server, token)
            with (
                steady_writer(server, RATES[kind], WRITE),
                steady_writer(server, _bystander.RATE, "insert into beat default values"),
            ):
                empty_mb = resident_mb(server)
                first, _ = connect(server, processes)
                rounds = [storm(server, processes, bystander) for _ in range(ROUNDS)]
            bystander.close()
            for process in processes:
                process.close()
    return {"empty_mb": empty_mb, "first": first, "storms": rounds}


def main():
    about, results = machine(POSTGRES), {}
    with run_test_cluster(binaries_of(POSTGRES)) as cluster:
        for kind in RATES:
            results[kind] = found = measure(cluster, kind)
            again = sorted(each["all_live_s"] for each in found["storms"])
            print(
                f"{kind}: all live again / all live the first time:"
                f" {again[0] / found['first']['all_live_s']:.2f}"
            )
            for each in (found["first"], *found["storms"]):
                print("  " + json.dumps(each), flush=True)
    write_results("reconnect_storm", {**results, "clients": CLIENTS, "machine": about})


if __name__ == "__main__":
    main()
