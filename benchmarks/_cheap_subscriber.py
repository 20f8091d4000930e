"""A subscriber that costs next to nothing: it counts frames by a byte pattern."""

import json
import socket

_EVENT = b'"postgres_changes"'


class CheapSubscriber:
    """One channel on one table; the frames of its changes are counted, not decoded."""

    def __init__(self, server, token, table):
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)))
        path = f"/realtime/v1/websocket?vsn=2.0.0&apikey={server.anon_key}"
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        self._until(b"\r\n\r\n")
        entry = {"event": "*", "schema": "public", "table": table}
        payload = {"config": {"postgres_changes": [entry]}, "access_token": token}
        join = json.dumps(["1", "1", "realtime:t", "phx_join", payload]).encode()
        head = bytes((0x81, 0xFE)) + len(join).to_bytes(2, "big")
        self.socket.sendall(head + b"\0\0\0\0" + join)
        self._until(b"Subscribed to PostgreSQL")

    def _until(self, pattern):
        received = b""
        while pattern not in received:
            received += self._receive()

    def _receive(self):
        received = self.socket.recv(1 << 20)
        if not received:
            message = "the server closed the connection of the subscriber"
            raise SystemExit(message)
        return received

    def count(self, last):
        """Count the frames of changes until a pattern comes; return how many there were."""
        frames, rest = 0, b""
        overlap = max(len(_EVENT), len(last)) - 1
        while True:
            received = rest + self._receive()
            # What is kept for the next round must not be counted twice.
            frames += received.count(_EVENT) - rest.count(_EVENT)
            if last in received:
                return frames
            rest = received[-overlap:]
