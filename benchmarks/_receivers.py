"""Subscribers that cost next to nothing: plain sockets behind one epoll, in a process of their own.

Run by a benchmark as ``python _receivers.py``; it reads one JSON line (``host``, ``port``, ``key``,
``tokens``: one subscriber each, ``table``, ``more`` for their entries), answers ``ready`` once all
are subscribed, counts bytes until a line ``stop`` comes, and answers with one JSON line: the bytes
that each subscriber got, and of the first one every chunk with the time of its arrival, so that its
frames can be dated afterwards.
"""

import base64
import json
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from _native import ANSWER, handshake, join_text, masked

#: For one answer of the process, or of the server to one subscriber.
DEADLINE_S = 60.0


class Receivers:
    """The process, as the benchmark sees it."""

    def __init__(self, url, key, tokens, table, **more):
        host, port = url.removeprefix("http://").split(":")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        task = {"host": host, "port": int(port), "key": key, "tokens": tokens, "table": table}
        task["more"] = more
        self._say(json.dumps(task))
        answer = self._answer()
        assert answer == "ready\n", answer

    def _say(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            sys.exit("the receivers have ended: nothing was measured")

    def _answer(self):
        readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        if not readable:
            self.process.kill()
            sys.exit(f"the receivers did not answer within {DEADLINE_S:.0f} s")
        return self.process.stdout.readline()

    def counts(self):
        """Return the bytes that each subscriber got so far."""
        self._say("count")
        return json.loads(self._answer())

    def stop(self):
        """End it; return the bytes per subscriber and the first one's frames with their times."""
        self._say("stop")
        found = json.loads(self._answer())
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


def open_subscriber(address, key, token, table, **more):
    """Return the socket of a client that is subscribed to a table; it waits DEADLINE_S at most."""
    connection = socket.create_connection(address, timeout=DEADLINE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(handshake(key))
    read_until(connection, b"\r\n\r\n")
    connection.sendall(masked(join_text(table, token, **more)))
    read_until(connection, ANSWER.encode())
    return connection


def read_until(connection, wanted):
    found, deadline_s = b"", time.monotonic() + DEADLINE_S
    while wanted not in found:
        data = connection.recv(65536)
        if not data or time.monotonic() > deadline_s:
            sys.exit(f"a subscriber did not get {wanted!r}, but {found[-500:]!r}")
        found += data


def main():
    task = json.loads(sys.stdin.readline())
    address, key, table = (task["host"], task["port"]), task["key"], task["table"]
    connections = [
        open_subscriber(address, key, token, table, **task["more"]) for token in task["tokens"]
    ]
    counts = [0] * len(connections)
    chunks = []
    poll = select.epoll()
    places = {}
    for place, connection in enumerate(connections):
        connection.settimeout(0)
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
