"""Clients that keep positions and come back at once, as many as one epoll can hold.

Run by a benchmark as ``python _resumers.py``. Each client opens a socket, joins one channel with
the last position that it was told, counts the frames of changes by a byte pattern and notes the
position behind them. A socket that is refused or closed is opened again a little later, as the
official clients do. The commands come as JSON lines and are answered with one line each:

``setup``     address, key, clients (number of the token, filter), tokens, table
``connect``   everybody at once; answered when each has ``events`` changes or more and a position
              behind them, with what it took
``await``     answered when each has so many since it connected, and a position behind them
``forget``    no client knows a position any more
``cut``       resets every connection at once
"""

import json
import random
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from _native import ANSWER, handshake, masked

EVENT = b'"postgres_changes",{"ids"'
POSITION = b'"position":"'
RESYNC = b'"message":"resync"'
REFUSED = b'"phx_reply",{"status":"error"'
#: Longer than every frame that is looked for, and shorter than a change and its mark.
TAIL = 480
HEARTBEAT = masked('[null,"h","phoenix","heartbeat",{}]')
HEARTBEAT_INTERVAL_S = 20.0
#: What a refused client waits before it tries again, spread by half.
RETRY_S = 0.5
#: What a client waits for the upgrade or its join before it tries again.
PATIENCE_S = 45.0
#: A reset instead of an orderly end.
RESET = struct.pack("ii", 1, 0)


class Resumers:
    """The process, as the benchmark sees it."""

    def __init__(self, server, clients, tokens, table, deadline_s):
        """Start it.

        Args:
            server: The server.
            clients: For each client the number of its token, and its filter or None.
            tokens: The tokens.
            table: What they subscribe to.
            deadline_s: For every answer.
        """
        host, port = server.url.removeprefix("http://").split(":")
        self.deadline_s = deadline_s
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask(
            "setup",
            address=[host, int(port)],
            key=server.anon_key,
            clients=clients,
            tokens=tokens,
            table=table,
            deadline_s=deadline_s,
        )

    def ask(self, command, **details):
        """Give a command and wait for its answer."""
        self.say(command, **details)
        return self.answer()

    def say(self, command, **details):
        try:
            self.process.stdin.write(json.dumps({"do": command, **details}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            sys.exit("the clients have ended: nothing was measured")

    def answer(self):
        readable, _, _ = select.select([self.process.stdout], [], [], self.deadline_s + 10)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            self.process.kill()
            sys.exit(f"the clients did not answer within {self.deadline_s + 10:.0f} s")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


# --- the process ----------------------------------------------------------------------------


class Client:
    """One client and what it was told."""

    __slots__ = (
        "began_s",
        "entry",
        "events",
        "is_marked",
        "phase",
        "position",
        "rest",
        "seen_s",
        "socket",
        "subscribed_s",
        "token",
    )

    def __init__(self, token, entry):
        self.token, self.entry = token, entry
        self.position = None
        self.socket = None
        self.phase, self.rest = "away", b""
        self.events, self.is_marked = 0, False
        self.subscribed_s = self.seen_s = 0.0

    def join(self):
        entry = {**self.entry, "positions": True}
        if self.position is not None:
            entry["since"] = self.position
        payload = {"config": {"postgres_changes": [entry]}, "access_token": self.token}
        return masked(json.dumps(["1", "1", "realtime:t", "phx_join", payload]))


class Clients:
    """All of them, behind one epoll."""

    def __init__(self, task):
        self.address, self.deadline_s = tuple(task["address"]), task["deadline_s"]
        self.handshake = handshake(task["key"])
        self.poll = select.epoll()
        self.by_number = {}
        self.retries = []
        self.buffer = bytearray(1 << 18)
        self.resyncs = {}
        self.refused = self.closed = self.unanswered = 0
        self.looked_s = 0.0
        self.beaten_s = time.monotonic()
        entry = {"event": "*", "schema": "public", "table": task["table"]}
        self.all = [
            Client(task["tokens"][token], entry if term is None else {**entry, "filter": term})
            for token, term in task["clients"]
        ]

    def connect(self, events):
        began_s = time.monotonic()
        self.resyncs = {}
        self.refused = self.closed = self.unanswered = 0
        for client in self.all:
            client.events, client.is_marked = 0, False
            self.open(client)
        seconds = self.run_until(events)
        subscribed = sorted(client.subscribed_s - began_s for client in self.all)
        seen = sorted(client.seen_s - began_s for client in self.all)
        return {
            "seconds": seconds,
            "subscribed_s": [subscribed[0], subscribed[len(subscribed) // 2], subscribed[-1]],
            "caught_up_s": [seen[0], seen[len(seen) // 2], seen[-1]],
            "events": sum(client.events for client in self.all),
            "resyncs": self.resyncs,
            "refused_joins": self.refused,
            "closed_sockets": self.closed,
            "unanswered": self.unanswered,
        }

    def open(self, client):
        client.socket = opened = socket.socket()
        opened.settimeout(0)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.phase, client.rest, client.began_s = "connecting", b"", time.monotonic()
        self.by_number[opened.fileno()] = client
        opened.connect_ex(self.address)
        self.poll.register(opened.fileno(), select.EPOLLOUT)

    def drop(self, client, *, reset=False):
        number = client.socket.fileno()
        self.poll.unregister(number)
        del self.by_number[number]
        if reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.socket.close()
        client.phase = "away"

    def try_again(self, client):
        self.drop(client)
        at_s = time.monotonic() + RETRY_S * random.uniform(0.5, 1.5)
        self.retries.append((at_s, client))

    def cut(self):
        for client in self.all:
            if client.phase != "away":
                self.drop(client, reset=True)

    def run_until(self, events):
        """Serve until every client has so many changes and a position; return the seconds."""
        began_s = time.monotonic()
        missing = {client for client in self.all if not self.has(client, events)}
        while missing:
            now_s = time.monotonic()
            if now_s > began_s + self.deadline_s:
                sys.exit(self.explained(missing, events))
            self.look_after(now_s)
            for number, _ in self.poll.poll(0.1):
                client = self.by_number.get(number)
                if client is None:
                    continue
                self.serve(client)
                if client in missing and self.has(client, events):
                    client.seen_s = time.monotonic()
                    missing.discard(client)
        return time.monotonic() - began_s

    def has(self, client, events):
        return client.phase == "joined" and client.is_marked and client.events >= events

    def explained(self, missing, events):
        one = next(iter(missing))
        return (
            f"{len(missing)} of {len(self.all)} clients did not get {events} changes in time;"
            f" resyncs: {self.resyncs}; one is {one.phase}, has {one.events} and was told last:"
            f" {one.rest[-300:]!r}"
        )

    def look_after(self, now_s):
        """Send heartbeats, and open again what was refused or got no answer."""
        if now_s > self.looked_s + 1.0:
            self.looked_s = now_s
            for client in self.all:
                is_waiting = client.phase not in {"joined", "away"}
                if is_waiting and now_s > client.began_s + PATIENCE_S:
                    self.unanswered += 1
                    self.try_again(client)
        due = [client for at_s, client in self.retries if at_s <= now_s]
        self.retries = [each for each in self.retries if each[0] > now_s]
        for client in due:
            self.open(client)
        if now_s > self.beaten_s + HEARTBEAT_INTERVAL_S:
            self.beaten_s = now_s
            for client in self.all:
                if client.phase == "joined":
                    client.socket.send(HEARTBEAT)

    def serve(self, client):
        try:
            if client.phase == "connecting":
                self.poll.modify(client.socket.fileno(), select.EPOLLIN)
                client.socket.send(self.handshake)
                client.phase = "upgrading"
                return
            size = client.socket.recv_into(self.buffer)
        except (ConnectionError, BlockingIOError):
            size = 0
        if not size:
            self.closed += 1
            self.try_again(client)
            return
        data = client.rest + self.buffer[:size]
        if client.phase == "joined":
            self.take(client, data, len(client.rest))
        elif client.phase == "upgrading":
            client.rest = data
            if b"\r\n\r\n" in data:
                client.rest, client.phase = b"", "joining"
                client.socket.send(client.join())
        elif ANSWER.encode() in data:
            client.phase, client.subscribed_s = "joined", time.monotonic()
            self.take(client, data, 0)
        else:
            client.rest = data
            if REFUSED in data:
                self.refused += 1
                self.try_again(client)

    def take(self, client, data, seen):
        """Count what came behind the bytes that were seen already."""
        before = data[:seen]
        client.events += data.count(EVENT) - before.count(EVENT)
        self.note_resyncs(data, before)
        place = data.rfind(POSITION)
        end = data.find(b'"', place + len(POSITION)) if place >= 0 else -1
        client.is_marked = end >= 0 and place > data.rfind(EVENT)
        if client.is_marked:
            client.position = data[place + len(POSITION) : end].decode()
        client.rest = bytes(data[-TAIL:])

    def note_resyncs(self, data, before):
        """Count what was told; who has to load its rows again did not go on where it was."""
        if data.count(RESYNC) > before.count(RESYNC):
            reason = data[data.rfind(RESYNC) :].split(b'"reason":"')[-1].split(b'"')[0].decode()
            self.resyncs[reason] = self.resyncs.get(reason, 0) + 1


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = None
    for line in sys.stdin:
        task = json.loads(line)
        answer = {}
        match task.pop("do"):
            case "setup":
                clients = Clients(task)
            case "connect":
                answer = clients.connect(task["events"])
            case "await":
                answer = {"seconds": clients.run_until(task["events"])}
            case "forget":
                for client in clients.all:
                    client.position = None
            case "cut":
                clients.cut()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
