"""What one write per tick gains: many events a second to 1,000 clients, against a write per frame.

Usage: make bench NAME=coalescing. Both servers are the real one; the second has one part replaced
before it starts (`_server_variant.py`): every frame is written by a system call of its own as soon
as it is queued. Each event is a transaction of one row. The ratio is that of delivered frames per
second of the server's processor time; the rate by the clock stands beside it, and suffers from
whatever else the machine does.

At 500 events a second, where the goal is set, a fast core keeps up by coalescing: it writes as
often as it has time to, and its rate is what was asked for. So a second pace asks for more than
either server can send on one core: both fall behind and work off what has piled up in the
database's WAL and in the server, and the sooner one is done, the higher its rate.
"""

import sys
import tempfile
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _native import compile_programs, cpu_s, join_text, subscribers
from _results import machine, write_results
from fanout import SCHEMA, VARIANT, capture_frame, insert, wait_total

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

CLIENTS, EVENTS = 1_000, 1_500
PACES_PER_S = (500, 2_000)
GOAL = 4.0
POSTGRES = 18


def write_events(writer, begin_s, per_s):
    for number in range(EVENTS):
        late_s = begin_s + number / per_s - time.monotonic()
        if late_s > 0:
            time.sleep(late_s)
        insert(writer, 1)
    return time.monotonic() - begin_s


def measure(programs, server, per_s):
    with psycopg.connect(server.database_url, autocommit=True) as writer:
        frame = capture_frame(server, writer)
        join = join_text("ticks", server.service_role_key)
        with subscribers(programs, server, CLIENTS, join) as program:
            insert(writer, 1)
            wait_total(program, len(frame) * CLIENTS)
            metrics = server.metrics()
            before_s, begin_s = cpu_s(server.process.pid), time.monotonic()
            writing_s = write_events(writer, begin_s, per_s)
            wait_total(program, len(frame) * CLIENTS * (1 + EVENTS))
            took_s = time.monotonic() - begin_s
            used_s = cpu_s(server.process.pid) - before_s
            after = server.metrics()
    frames = CLIENTS * EVENTS
    writes = after["heliograph_socket_writes_total"] - metrics["heliograph_socket_writes_total"]
    return {
        "frames_per_cpu_s": round(frames / used_s),
        "frames_per_s": round(frames / took_s),
        "us_per_frame": round(used_s / frames * 1e6, 2),
        "frames_per_write": round(frames / writes, 2),
        "events_per_s_written": round(EVENTS / writing_s),
        "lag_at_the_end_s": round(took_s - writing_s, 2),
    }


def run(programs, cluster, program=()):
    with tempfile.TemporaryDirectory() as folder:
        with run_server(cluster.create_database(), Path(folder), program=program) as server:
            server.sql(SCHEMA)
            return [measure(programs, server, per_s) for per_s in PACES_PER_S]


def main():
    about = machine(POSTGRES)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_test_cluster(binaries_of(POSTGRES)) as cluster,
    ):
        programs = compile_programs(folder)
        coalesced = run(programs, cluster)
        each = run(programs, cluster, [*VARIANT, "write_each"])
    results = []
    for per_s, ours, theirs in zip(PACES_PER_S, coalesced, each, strict=True):
        ratio = round(ours["frames_per_cpu_s"] / theirs["frames_per_cpu_s"], 2)
        rate_ratio = round(ours["frames_per_s"] / theirs["frames_per_s"], 2)
        print(f"{per_s} events/s: frames per CPU second, coalesced / a write each: {ratio}", end="")
        print(f" (goal >= {GOAL}); by the clock: {rate_ratio}")
        print(f"  coalesced:    {ours}")
        print(f"  a write each: {theirs}")
        results.append(
            {
                "events_per_s": per_s,
                "cpu_ratio": ratio,
                "rate_ratio": rate_ratio,
                "coalesced": ours,
                "write_each": theirs,
            }
        )
    content = {"goal_ratio": GOAL, "clients": CLIENTS, "paces": results, "machine": about}
    write_results("coalescing", content)


if __name__ == "__main__":
    main()
