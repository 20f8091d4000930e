"""A subscriber who never left, and a steady writer: what others do shows in its delays."""

import contextlib
import datetime
import itertools
import json
import select
import subprocess
import sys
import threading
import time

from _native import masked
from _receivers import frame_at, open_subscriber

RATE = 50
SCHEMA = """
create table beat (id bigserial primary key, shop text default 'a',
                   at timestamptz default clock_timestamp());
alter table beat enable row level security;
create policy own on beat for select to authenticated using (shop = (auth.jwt() ->> 'shop'));
alter publication supabase_realtime add table beat;
"""
WRITER = """
import sys, time, psycopg
url, rate, statement = sys.argv[1], float(sys.argv[2]), sys.argv[3]
with psycopg.connect(url, autocommit=True) as connection:
    begin, number = time.monotonic(), 0
    while True:
        number += 1
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        connection.execute(statement, prepare=True)
"""
HEARTBEAT = masked('[null,"h","phoenix","heartbeat",{}]')
HEARTBEAT_INTERVAL_S = 20.0


@contextlib.contextmanager
def steady_writer(server, rate, statement):
    """Commit one statement after the other, in a process of its own, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, server.database_url, str(rate), statement]
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(5)


class Bystander:
    """One subscriber of ``beat``, read by a thread, with its changes dated."""

    def __init__(self, server, token):
        host, port = server.url.removeprefix("http://").split(":")
        self._socket = open_subscriber((host, int(port)), server.anon_key, token, "beat")
        self._arrivals = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        rest, beaten_s = b"", time.monotonic()
        while not self._is_closing:
            if time.monotonic() > beaten_s + HEARTBEAT_INTERVAL_S:
                beaten_s = time.monotonic()
                self._socket.sendall(HEARTBEAT)
            readable, _, _ = select.select([self._socket], [], [], 0.1)
            if not readable:
                continue
            data = self._socket.recv(1 << 16)
            if not data:
                return
            now_s, place, rest = time.time(), 0, rest + data
            while (found := frame_at(rest, place)) is not None:
                payload, place = found
                if b'"postgres_changes",{"ids"' in payload:
                    self._arrivals.append((now_s, payload))
            rest = rest[place:]

    def close(self):
        self._is_closing = True
        self._thread.join(5)
        self._socket.close()

    def noticed(self, began_s, ended_s):
        """Return the delays of what was committed between two times, and the longest silence."""
        delays, arrivals = [], [began_s]
        for arrived_s, payload in tuple(self._arrivals):
            record = json.loads(payload)[4]["data"]["record"]
            at_s = datetime.datetime.fromisoformat(record["at"]).timestamp()
            if began_s <= at_s < ended_s:
                delays.append(arrived_s - at_s)
                arrivals.append(arrived_s)
        if not delays:
            sys.exit("the subscriber who never left was told nothing: nothing was measured")
        delays.sort()
        silences = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
        return {
            "p50_ms": round(delays[len(delays) // 2] * 1e3, 1),
            "p99_ms": round(delays[int(len(delays) * 0.99)] * 1e3, 1),
            "max_ms": round(delays[-1] * 1e3, 1),
            "longest_silence_ms": round(max(silences) * 1e3, 1),
        }
