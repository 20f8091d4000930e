"""How long from the commit to the socket: 100 clients, 1,000 changes a second, one set of claims.

Usage: make bench NAME=commit_to_socket. One process holds the 100 sockets: 99 count
bytes, one reads its frames. The times are those of the row (clock_timestamp() at the insert) and of
the arrival, on one machine. What is compared within the run is the service role (nothing to judge)
against an owner policy (every change judged by PostgreSQL).
"""

import asyncio
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import websockets

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

CLIENTS, RATE, SECONDS = 100, 1_000, 4
OWNER = "00000000-0000-0000-0000-00000000000a"
TARGET_MS = 10.0

SCHEMA = """
create table ticks (id bigserial primary key, owner uuid, at timestamptz default clock_timestamp());
alter table ticks enable row level security;
create policy own on ticks for select to authenticated using (owner = (select auth.uid()));
alter publication supabase_realtime add table ticks;
"""


async def subscribe(server, token):
    url = f"{server.websocket_url}/websocket?vsn=2.0.0&apikey={server.anon_key}"
    socket = await websockets.connect(url, max_queue=None, compression=None)
    await socket.send(join_frame(token))
    while "Subscribed to PostgreSQL" not in await socket.recv():
        pass
    return socket


class Counter(asyncio.Protocol):
    """A subscriber that costs next to nothing: it counts bytes and reads no frame."""

    def __init__(self):
        self.bytes_received = 0
        self.head = b""

    def data_received(self, data):
        self.bytes_received += len(data)
        if len(self.head) < 4_000:
            self.head += data


def masked(text):
    payload = text.encode()
    size = len(payload)
    head = (
        bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    )
    return head + b"\0\0\0\0" + payload


async def subscribe_counter(server, token):
    host, port = server.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    transport, counter = await loop.create_connection(Counter, host, int(port))
    path = f"/realtime/v1/websocket?vsn=2.0.0&apikey={server.anon_key}"
    transport.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    while b"\r\n\r\n" not in counter.head:
        await asyncio.sleep(0.002)
    transport.write(masked(join_frame(token)))
    while b"Subscribed to PostgreSQL" not in counter.head:
        await asyncio.sleep(0.002)
    counter.bytes_received = 0
    return transport, counter


def join_frame(token):
    entry = {"event": "*", "schema": "public", "table": "ticks"}
    payload = {"config": {"postgres_changes": [entry]}, "access_token": token}
    return json.dumps(["1", "1", "realtime:t", "phx_join", payload])


async def probe(socket, wanted, arrivals):
    for _ in range(wanted):
        text = await socket.recv()
        arrivals.append((time.time(), text))


async def write(server, wanted):
    connection = await psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
    async with connection:
        begin = time.monotonic()
        for number in range(wanted):
            late = begin + number / RATE - time.monotonic()
            if late > 0:
                await asyncio.sleep(late)
            await connection.execute("insert into ticks (owner) values (%s)", (OWNER,))
        return time.monotonic() - begin


async def measure(server, token):
    wanted = RATE * SECONDS
    counters = [await subscribe_counter(server, token) for _ in range(CLIENTS - 1)]
    socket, arrivals = await subscribe(server, token), []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(probe(socket, wanted, arrivals))
        took = await write(server, wanted)
    size = sum(len(text) + 4 for _, text in arrivals)
    async with asyncio.timeout(20):
        while any(counter.bytes_received < size * 0.98 for _, counter in counters):
            await asyncio.sleep(0.01)
    for transport, _ in counters:
        transport.close()
    await socket.close()
    delays = sorted(
        arrived - psycopg_time(json.loads(text)[4]["data"]["record"]["at"])
        for arrived, text in arrivals
    )
    return {
        "p50_ms": round(delays[len(delays) // 2] * 1e3, 2),
        "p99_ms": round(delays[len(delays) * 99 // 100] * 1e3, 2),
        "changes_per_s": round(wanted / took),
        "frames": wanted * CLIENTS,
    }


def psycopg_time(text):
    return datetime.datetime.fromisoformat(text).timestamp()


def main():
    with run_test_cluster(binaries_of(18)) as cluster, tempfile.TemporaryDirectory() as folder:
        with run_server(cluster.create_database(), Path(folder)) as server:
            server.sql(SCHEMA)
            free = asyncio.run(measure(server, server.service_role_key))
            judged = asyncio.run(measure(server, server.token(OWNER)))
            metrics = server.metrics()
    ratio = judged["p99_ms"] / free["p99_ms"]
    print(f"p99 judged by PostgreSQL / p99 with nothing to judge: {ratio:.2f}")
    print(f"service role:  {free}   (target p99 <= {TARGET_MS} ms)")
    print(f"owner policy:  {judged}")
    frames, writes = (
        metrics["heliograph_sent_frames_total"],
        metrics["heliograph_socket_writes_total"],
    )
    print(
        f"frames per write: {frames / writes:.2f}; resyncs: "
        f"{sum(v for k, v in metrics.items() if k.startswith('heliograph_resyncs_total'))}"
    )
    results = Path(__file__).with_name("results")
    results.mkdir(exist_ok=True)
    (results / "commit_to_socket.json").write_text(
        json.dumps({"service_role": free, "owner_policy": judged, "p99_ratio": ratio})
    )


if __name__ == "__main__":
    main()
