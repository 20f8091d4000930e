"""How long from the commit to the socket: 100 clients, 1,000 changes a second.

Usage: make bench NAME=commit_to_socket. Runs against one server: the service role (nothing to
judge), one user (every change judged by PostgreSQL for one set of claims), both with channels that
are told positions as well, and 100 users (every change judged 100 times, once for each set of
claims). The delay is that from the row's clock_timestamp() at its insert to the arrival of its
frame at one of the clients, so it includes the commit itself; the other clients' sockets are read
and counted. Writer and clients are processes of their own on the same machine as server and
PostgreSQL, and share its cores.

A run in which not every client gets every change measures nothing and ends the benchmark. The one
with 100 users is known not to keep up; what was missing stands in its result (`incomplete`).
"""

import datetime
import json
import operator
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from _native import cpu_s
from _receivers import Receivers
from _results import machine, write_results

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

CLIENTS, RATE, SECONDS = 100, 1_000, 5
TARGET_MS = 10.0
#: The clients send no heartbeats, so the server closes them 60 s after their join.
DRAIN_DEADLINE_S, QUIET_S = 45.0, 2.0
POSTGRES = 18

SCHEMA = """
create table ticks (id bigserial primary key, shop text, at timestamptz default clock_timestamp());
alter table ticks enable row level security;
create policy own on ticks for select to authenticated using (shop = (auth.jwt() ->> 'shop'));
alter publication supabase_realtime add table ticks;
"""

#: Commits rows at a steady pace; a process of its own, so that it costs the measurement no time.
WRITER = """
import sys, time, psycopg
url, rate, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with psycopg.connect(url, autocommit=True) as connection:
    begin = time.monotonic()
    for number in range(count):
        late = begin + number / rate - time.monotonic()
        if late > 0:
            time.sleep(late)
        connection.execute("insert into ticks (shop) values ('a')", prepare=True)
    print(time.monotonic() - begin)
"""


def measure(server, tokens, *, must_keep_up=True, has_positions=False):
    count = RATE * SECONDS
    receivers = Receivers(server.url, server.anon_key, tokens, "ticks", has_positions=has_positions)
    # Notes behind the answer to a join are not counted.
    joined, _ = settle(receivers, above=[-1] * len(tokens))
    began_cpu_s, before = cpu_s(server.process.pid), server.metrics()
    command = [sys.executable, "-c", WRITER, server.database_url, str(RATE), str(count)]
    written = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=DRAIN_DEADLINE_S
    )
    _, is_settled = settle(receivers, above=joined)
    used_cpu_s, after = cpu_s(server.process.pid) - began_cpu_s, server.metrics()
    counts, frames = receivers.stop()
    delays = sorted(delays_of(frames))
    received = [total - before_all for total, before_all in zip(counts, joined, strict=True)]
    delivered = difference(before, after, "heliograph_changes_delivered_total")
    incomplete = None
    if not is_settled:
        incomplete = f"not everything had come {DRAIN_DEADLINE_S:.0f} s after the last commit"
    elif len(delays) != count:
        incomplete = f"a client got {len(delays)} of {count} changes"
    elif has_positions and delivered != count * len(tokens):
        incomplete = f"{delivered:.0f} of {count * len(tokens)} changes were delivered"
    elif not has_positions and min(received) != max(received):
        incomplete = f"one client got {min(received)} bytes and another {max(received)}"
    if incomplete and (must_keep_up or not delays):
        sys.exit(f"{incomplete}: nothing was measured")
    sent = difference(before, after, "heliograph_sent_frames_total")
    writes = difference(before, after, "heliograph_socket_writes_total")
    return {
        "p50_ms": percentile_ms(delays, 0.50),
        "p99_ms": percentile_ms(delays, 0.99),
        "changes_per_s": round(count / float(written.stdout)),
        "received_of_written": round(len(delays) / count, 4),
        "incomplete": incomplete,
        "server_cpu_us_per_frame": round(used_cpu_s / sent * 1e6, 2),
        "server_cpu_us_per_change": round(used_cpu_s / delivered * 1e6, 2),
        "frames_per_write": round(sent / writes, 2),
        "resyncs": difference(before, after, "heliograph_resyncs_total"),
    }


def settle(receivers, above):
    """Wait until everybody got more than ``above`` and nothing comes any more.

    Return the bytes of each, and whether it was in time.
    """
    deadline_s = time.monotonic() + DRAIN_DEADLINE_S
    counts, changed_s = receivers.counts(), time.monotonic()
    while (now_s := time.monotonic()) < deadline_s:
        if now_s > changed_s + QUIET_S:
            return counts, True
        time.sleep(0.2)
        found = receivers.counts()
        if found != counts or any(map(operator.le, found, above)):
            counts, changed_s = found, now_s
    return counts, False


def delays_of(frames):
    for arrived, payload in frames:
        message = json.loads(payload)
        if message[3] == "postgres_changes":
            at = datetime.datetime.fromisoformat(message[4]["data"]["record"]["at"])
            yield arrived - at.timestamp()


def percentile_ms(delays, share):
    return round(delays[int(len(delays) * share)] * 1e3, 2)


def difference(before, after, name):
    def total(samples):
        return sum(value for key, value in samples.items() if key.split("{")[0] == name)

    return total(after) - total(before)


def main():
    about = machine(POSTGRES)
    with (
        run_test_cluster(binaries_of(POSTGRES)) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        with run_server(cluster.create_database(), Path(folder)) as server:
            server.sql(SCHEMA)
            one = server.token("user-0", shop="a")
            runs = {
                "service_role": measure(server, [server.service_role_key] * CLIENTS),
                "positions": measure(
                    server, [server.service_role_key] * CLIENTS, has_positions=True
                ),
                "one_user": measure(server, [one] * CLIENTS),
                "one_user_positions": measure(server, [one] * CLIENTS, has_positions=True),
                "many_users": measure(
                    server,
                    [server.token(f"user-{n}", shop="a") for n in range(CLIENTS)],
                    must_keep_up=False,
                ),
            }
    free, marked, one, one_marked, many = runs.values()
    print(f"p99, judged for one user / nothing to judge:  {one['p99_ms'] / free['p99_ms']:.2f}")
    print(f"p99, judged for 100 users / for one user:     {many['p99_ms'] / one['p99_ms']:.2f}")
    for name, plain, told in (("service role", free, marked), ("one user", one, one_marked)):
        cpu = told["server_cpu_us_per_change"] / plain["server_cpu_us_per_change"]
        print(f"positions, {name}: p50 {told['p50_ms'] / plain['p50_ms']:.2f}", end="")
        print(f", p99 {told['p99_ms'] / plain['p99_ms']:.2f}, CPU {cpu:.2f}")
    for name, run in runs.items():
        target = f"   (goal: p99 <= {TARGET_MS:.0f} ms)" if name != "many_users" else ""
        print(f"{name}: {json.dumps(run)}{target}")
    write_results("commit_to_socket", {**runs, "machine": about})


if __name__ == "__main__":
    main()
