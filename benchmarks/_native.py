"""The C programs that benchmarks drive: receivers that cost little, a writer to compare with."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_SOURCES = Path(__file__).with_name("native")
#: What tells a receiver that it is subscribed.
ANSWER = "Subscribed to PostgreSQL"
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def compile_programs(folder):
    """Compile the programs into a folder, or end with a message that says what is missing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit(
            "this benchmark compares with a C program and needs a C compiler (cc): install gcc"
        )
    programs = {}
    for source in _SOURCES.glob("*.c"):
        program = programs[source.stem] = Path(folder, source.stem)
        subprocess.run([compiler, "-O2", "-Wall", "-o", program, source], check=True)
    return programs


def cpu_s(pid):
    """Return the processor time of a process so far, all its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS_PER_S


def join_text(table, token, topic="realtime:t", **more):
    entry = {"event": "*", "schema": "public", "table": table, **more}
    payload = {"config": {"postgres_changes": [entry]}, "access_token": token}
    return json.dumps(["1", "1", topic, "phx_join", payload])


def masked(text):
    """Return a client's text frame; the mask is zero."""
    payload = text.encode()
    size = len(payload)
    head = (
        bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    )
    return head + b"\0\0\0\0" + payload


def handshake(key):
    return _handshake(f"/realtime/v1/websocket?vsn=2.0.0&apikey={key}")


def _handshake(path):
    return (
        f"GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


class Program:
    """A running C program that is talked to in lines."""

    def __init__(self, *command):
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.line()

    def line(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a C program ended with {self._process.wait(5)}")
        return line.strip()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


@contextlib.contextmanager
def subscribers(programs, server, count, join):
    """Have ``count`` sockets subscribe to a server; they take what comes."""
    folder = programs["subscribers"].parent
    Path(folder, "handshake").write_bytes(handshake(server.anon_key))
    Path(folder, "join").write_bytes(masked(join))
    port = server.url.rsplit(":", 1)[1]
    texts = (folder / "handshake", folder / "join", ANSWER)
    program = Program(programs["subscribers"], port, count, *texts)
    try:
        program.line()
        yield program
    finally:
        program.close()


def received(program):
    """Return the bytes of all sockets together and of the one that got the fewest."""
    total, least, closed = map(int, program.ask("count").split())
    if closed:
        sys.exit(f"{closed} sockets were closed by the server: nothing was measured")
    return total, least


def least_cpu_s(programs, *, count, frames, per_s, writes):
    """Return the processor time of the C writer for the same bytes to as many sockets."""
    path = programs["epoll_writer"].with_name("frames")
    path.write_bytes(frames)
    return _writer_cpu_s(programs, [programs["epoll_writer"]], (count, path, per_s, writes))


def bare_cpu_s(programs, kind, *, count, frame, per_s, writes):
    """Return the same for a server that does nothing else (`_bare_server.py`)."""
    folder = programs["subscribers"].parent
    (folder / "frames").write_bytes(frame)
    (folder / "handshake").write_bytes(_handshake("/"))
    (folder / "join").write_bytes(masked("hello"))
    command = [sys.executable, Path(__file__).with_name("_bare_server.py"), kind]
    texts = (folder / "handshake", folder / "join", ANSWER)
    load = (count, folder / "frames", per_s, writes)
    return _writer_cpu_s(programs, command, load, texts)


def _writer_cpu_s(programs, command, load, texts=()):
    writer = Program(*command, *load)
    reader = Program(programs["subscribers"], writer.line(), load[0], *texts)
    try:
        reader.line()
        writer.line()
        return int(writer.ask("go")) / 1e6
    finally:
        writer.close()
        reader.close()
