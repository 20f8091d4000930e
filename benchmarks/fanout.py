"""What a delivered frame costs the server, against a C program that writes the same bytes.

Usage: make bench NAME=fanout. The server is the real one: a row is committed, read from the WAL,
matched, encoded and written to every subscriber (service role: nothing is judged). Counted is the
processor time of the server's process, all threads; PostgreSQL, the writer of the rows and the
receivers are other processes. The C program (`native/epoll_writer.c`) writes frames of the same
size to the same number of sockets at the same pace, one write(2) per socket and event; its
receivers are the same program, and neither side is woken by them.

The total holds what an event costs once (decoding, matching, encoding), so a run with one client
stands beside it, and the slope between it and the run with many: the marginal cost of one more
client. A second part runs at four times the pace: the server comes near to what a core can do, and
what arrives meanwhile leaves in one write. Another commits many rows at once: as many frames leave
in one write, and the C program writes them in one write as well. The last run the other adapter
(plain ASGI under uvicorn with `websockets`), and, for decision 0003, the libraries below both
adapters with nothing of ours above them (`_bare_server.py`).
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psycopg
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _native import (
    bare_cpu_s,
    compile_programs,
    cpu_s,
    join_text,
    least_cpu_s,
    received,
    subscribers,
)
from _results import machine, write_results

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server
from heliograph.core.wire.websocket_frame import TEXT, server_frame_header

GOAL = 1.3
ROUNDS = 3
DEADLINE_S = 60.0
POSTGRES = 18
VARIANT = [sys.executable, str(Path(__file__).with_name("_server_variant.py"))]

SCHEMA = """
create table ticks (id bigserial primary key, shop uuid default gen_random_uuid(),
    status text default 'paid', note text default repeat('n', 200));
alter sequence ticks_id_seq restart with 1000000;
alter publication supabase_realtime add table ticks;
"""


class Load(NamedTuple):
    """Clients, rows per transaction, transactions per second, and how many of them."""

    clients: int
    rows: int
    per_s: int
    events: int


# Slow enough that no two events meet in one write, on a machine that does other things as well.
ONE_CLIENT = Load(clients=1, rows=1, per_s=20, events=100)
SINGLE = Load(clients=1_000, rows=1, per_s=20, events=100)
BUSY = Load(clients=1_000, rows=1, per_s=80, events=240)
BURST = Load(clients=1_000, rows=16, per_s=10, events=40)
SLOWER = Load(clients=1_000, rows=1, per_s=10, events=50)


def capture_frame(server, writer):
    """Return the frame of one row as it stands on the wire."""
    url = f"{server.websocket_url}/websocket?vsn=2.0.0&apikey={server.anon_key}"
    with connect(url, compression=None) as socket:
        socket.send(join_text("ticks", server.service_role_key))
        while "Subscribed to PostgreSQL" not in socket.recv(timeout=10):
            pass
        insert(writer, 1)
        payload = socket.recv(timeout=10).encode()
    return server_frame_header(TEXT, len(payload)) + payload


def insert(writer, rows):
    writer.execute("insert into ticks (status) select 'paid' from generate_series(1, %s)", (rows,))


def wait_total(program, wanted):
    deadline_s = time.monotonic() + DEADLINE_S
    while (total := received(program)[0]) < wanted:
        if time.monotonic() > deadline_s:
            sys.exit(f"{total} of {wanted} bytes arrived within {DEADLINE_S:.0f} s")
        time.sleep(0.005)
    if total != wanted:
        sys.exit(f"{total} bytes arrived instead of {wanted}")


def server_cpu_s(programs, server, writer, load, frame):
    """Return the server's processor time for a load and its writes, once every byte has arrived."""
    join = join_text("ticks", server.service_role_key)
    per_event = len(frame) * load.rows * load.clients
    with subscribers(programs, server, load.clients, join) as program:
        insert(writer, load.rows)
        wait_total(program, per_event)
        writes = server.metrics()["heliograph_socket_writes_total"]
        before_s, begin_s = cpu_s(server.process.pid), time.monotonic()
        for number in range(load.events):
            late_s = begin_s + number / load.per_s - time.monotonic()
            if late_s > 0:
                time.sleep(late_s)
            insert(writer, load.rows)
        wait_total(program, per_event * (1 + load.events))
        used_s = cpu_s(server.process.pid) - before_s
        return used_s, server.metrics()["heliograph_socket_writes_total"] - writes


def measure_bare(programs, kind, frame, load):
    """Run a bare server in turns with the C program."""
    pairs = []
    pace = {"count": load.clients, "per_s": load.per_s, "writes": load.events}
    for _ in range(ROUNDS):
        bare_s = bare_cpu_s(programs, kind, frame=frame, **pace)
        least_s = least_cpu_s(programs, frames=frame, **pace)
        pairs.append((us_per_frame(bare_s, load), us_per_frame(least_s, load)))
    return summary(pairs)


def us_per_frame(cpu_used_s, load):
    return cpu_used_s / (load.clients * load.rows * load.events) * 1e6


def measure(programs, server, loads):
    """Run each load `ROUNDS` times, the server's turn and then the C program's."""
    found = {load: [] for load in loads}
    with psycopg.connect(server.database_url, autocommit=True) as writer:
        frame = capture_frame(server, writer)
        for _ in range(ROUNDS):
            for load in loads:
                ours_s, wrote = server_cpu_s(programs, server, writer, load, frame)
                least_s = least_cpu_s(
                    programs,
                    count=load.clients,
                    frames=frame * load.rows,
                    per_s=load.per_s,
                    writes=load.events,
                )
                pair = (us_per_frame(ours_s, load), us_per_frame(least_s, load))
                found[load].append(pair)
                per_write = load.clients * load.rows * load.events / wrote
                us = f"{pair[0]:.2f} / {pair[1]:.2f} us"
                print(f"{tuple(load)}: {us}, {per_write:.1f} frames a write")
    return found, frame


def summary(pairs):
    """Return the medians of both sides and of the ratios within the rounds."""
    return {
        "server_us_per_frame": round(statistics.median(ours for ours, _ in pairs), 2),
        "c_us_per_frame": round(statistics.median(least for _, least in pairs), 2),
        "ratio": round(statistics.median(ours / least for ours, least in pairs), 2),
    }


def slope(one, many):
    """Return the cost of one more client: what an event costs once is taken out."""
    ratios, costs = [], []
    for (alone_us, _), (all_us, least_us) in zip(one, many, strict=True):
        cost_us = (all_us * SINGLE.clients - alone_us) / (SINGLE.clients - 1)
        costs.append(cost_us)
        ratios.append(cost_us / least_us)
    return {
        "server_us_per_event_with_one_client": round(statistics.median(us for us, _ in one)),
        "marginal_us_per_frame": round(statistics.median(costs), 2),
        "marginal_ratio": round(statistics.median(ratios), 2),
    }


def run(programs, cluster, loads, *, program=()):
    with tempfile.TemporaryDirectory() as folder:
        with run_server(cluster.create_database(), Path(folder), program=program) as server:
            server.sql(SCHEMA)
            return measure(programs, server, loads)


def main():
    about = machine(POSTGRES)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_test_cluster(binaries_of(POSTGRES)) as cluster,
    ):
        programs = compile_programs(folder)
        found, frame = run(programs, cluster, [ONE_CLIENT, SINGLE, BUSY, BURST])
        asgi, _ = run(programs, cluster, [SLOWER], program=[*VARIANT, "asgi"])
        bare = {
            "bare_picows": measure_bare(programs, "picows", frame, SINGLE),
            "bare_uvicorn_websockets": measure_bare(programs, "asgi", frame, SLOWER),
        }
    results = {
        "goal_ratio": GOAL,
        "frame_bytes": len(frame),
        "one_frame_per_write": summary(found[SINGLE]),
        "slope": slope(found[ONE_CLIENT], found[SINGLE]),
        "four_times_the_pace": summary(found[BUSY]),
        "sixteen_frames_per_write": summary(found[BURST]),
        "asgi_adapter": summary(asgi[SLOWER]),
        **bare,
        "machine": about,
    }
    single, burst = results["one_frame_per_write"], results["sixteen_frames_per_write"]
    print(f"CPU per frame / C epoll writer: {single['ratio']} (goal <= {GOAL})")
    print(f"the same for one more client:   {results['slope']['marginal_ratio']}")
    print(f"at four times the pace:         {results['four_times_the_pace']['ratio']}")
    alone = burst["server_us_per_frame"] / single["c_us_per_frame"]
    print(f"{BURST.rows} rows at once / C, one write:      {burst['ratio']}")
    print(f"{BURST.rows} rows at once / C, a write each:   {alone:.2f}")
    print(f"plain ASGI adapter / C:         {results['asgi_adapter']['ratio']}")
    print(f"picows with nothing above / C:  {results['bare_picows']['ratio']}")
    print(f"uvicorn, websockets, the same:  {results['bare_uvicorn_websockets']['ratio']}")
    for name, value in results.items():
        print(f"{name}: {value}")
    write_results("fanout", results)


if __name__ == "__main__":
    main()
