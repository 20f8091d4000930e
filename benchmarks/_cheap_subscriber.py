"""A subscriber that costs next to nothing: it counts frames by a byte pattern."""

import sys
import time

from _receivers import open_subscriber

_EVENT = b'"postgres_changes"'


class CheapSubscriber:
    """One channel on one table; the frames of its changes are counted, not decoded."""

    def __init__(self, server, token, table):
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = open_subscriber((host, int(port)), server.anon_key, token, table)

    def count(self, last, deadline_s):
        """Count the frames of changes until a pattern comes; return how many there were.

        Ends the benchmark if it has not come by ``deadline_s`` of the monotonic clock.
        """
        frames, rest = 0, b""
        overlap = max(len(_EVENT), len(last)) - 1
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                sys.exit("the server closed the connection of the subscriber")
            if time.monotonic() > deadline_s:
                sys.exit(f"{frames} frames came in time, and {last!r} did not")
            received = rest + data
            # What is kept for the next round must not be counted twice.
            frames += received.count(_EVENT) - rest.count(_EVENT)
            if last in received:
                return frames
            rest = received[-overlap:]
