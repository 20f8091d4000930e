"""Subscribers that cost next to nothing: plain sockets behind one epoll, in a process of their own.

Run by a benchmark as ``python _receivers.py``; it reads one JSON line (``host``, ``port``, ``key``,
``tokens``: one subscriber each, ``table``), answers ``ready`` once all are subscribed, counts bytes
until a line ``stop`` comes, and answers with one JSON line: the bytes that each subscriber got, and
of the first one every chunk with the time of its arrival, so that its frames can be dated
afterwards.
"""

import base64
import json
import select
import socket
import subprocess
import sys
import time
from pathlib import Path


class Receivers:
    """The process, as the benchmark sees it."""

    def __init__(self, url, key, tokens, table):
        host, port = url.removeprefix("http://").split(":")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        task = {"host": host, "port": int(port), "key": key, "tokens": tokens, "table": table}
        self._say(json.dumps(task))
        answer = self.process.stdout.readline()
        assert answer == "ready\n", answer

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def counts(self):
        """Return the bytes that each subscriber got so far."""
        self._say("count")
        return json.loads(self.process.stdout.readline())

    def stop(self):
        """End it; return the bytes per subscriber and the first one's frames with their times."""
        self._say("stop")
        found = json.loads(self.process.stdout.readline())
        self.process.wait(20)
        chunks = [(at, base64.b64decode(data)) for at, data in found["chunks"]]
        return found["bytes"], dated_frames(chunks)


def dated_frames(chunks):
    """Cut a subscriber's bytes into frames: (time of the last byte's arrival, payload)."""
    frames, rest = [], b""
    for at, data in chunks:
        rest += data
        place = 0
        while (found := frame_at(rest, place)) is not None:
            payload, place = found
            frames.append((at, payload))
        rest = rest[place:]
    return frames


def frame_at(data, place):
    """Return the payload of an unmasked frame and the place behind it, if it is all there."""
    if len(data) < place + 2:
        return None
    size, head = data[place + 1], 2
    if size == 126:
        size, head = int.from_bytes(data[place + 2 : place + 4], "big"), 4
    elif size == 127:
        size, head = int.from_bytes(data[place + 2 : place + 10], "big"), 10
    end = place + head + size
    return (data[place + head : end], end) if len(data) >= end else None


# --- the process ----------------------------------------------------------------------------


def masked(text):
    payload = text.encode()
    size = len(payload)
    short = size < 126
    head = bytes((0x81, 0x80 | size)) if short else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


def open_subscriber(task, token):
    connection = socket.create_connection((task["host"], task["port"]))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    path = f"/realtime/v1/websocket?vsn=2.0.0&apikey={task['key']}"
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {task['host']}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    read_until(connection, b"\r\n\r\n")
    entry = {"event": "*", "schema": "public", "table": task["table"]}
    payload = {"config": {"postgres_changes": [entry]}, "access_token": token}
    join = json.dumps(["1", "1", "realtime:t", "phx_join", payload])
    connection.sendall(masked(join))
    read_until(connection, b"Subscribed to PostgreSQL")
    connection.settimeout(0)
    return connection


def read_until(connection, wanted):
    found = b""
    while wanted not in found:
        data = connection.recv(65536)
        if not data:
            message = f"the server closed a subscriber: {found[-500:]!r}"
            raise SystemExit(message)
        found += data


def main():
    task = json.loads(sys.stdin.readline())
    connections = [open_subscriber(task, token) for token in task["tokens"]]
    counts = [0] * len(connections)
    chunks = []
    poll = select.epoll()
    places = {}
    for place, connection in enumerate(connections):
        poll.register(connection.fileno(), select.EPOLLIN)
        places[connection.fileno()] = (place, connection)
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    buffer = bytearray(1 << 20)
    print("ready", flush=True)
    while True:
        for number, _ in poll.poll():
            if number == sys.stdin.fileno():
                if sys.stdin.readline() == "count\n":
                    print(json.dumps(counts), flush=True)
                    continue
                dated = [(at, base64.b64encode(data).decode()) for at, data in chunks]
                print(json.dumps({"bytes": counts, "chunks": dated}), flush=True)
                return
            place, connection = places[number]
            size = connection.recv_into(buffer)
            if not size:
                sys.exit("the server closed a subscriber")
            counts[place] += size
            if not place:
                chunks.append((time.time(), bytes(buffer[:size])))


if __name__ == "__main__":
    main()
