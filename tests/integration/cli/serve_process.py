"""`heliograph serve` as an operator starts it: a process, an environment, signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fixtures.server import JWT_SECRET
from heliograph.postgres.cluster import free_port
from heliograph.postgres.process_deadline import ProcessDeadline

PROGRAM = str(Path(sys.executable).with_name("heliograph"))


def environment(database_url: str | None, **more: str) -> dict[str, str]:
    """Return all that `serve` needs, and nothing of the caller's own settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    needed = {
        "HELIOGRAPH_JWT_SECRET": JWT_SECRET,
        "HELIOGRAPH_ALLOWED_ORIGINS": "https://app.example",
    }
    if database_url is not None:
        needed["DATABASE_URL"] = database_url
        needed["HELIOGRAPH_SLOT"] = "heliograph_" + database_url.rsplit("/", 1)[1]
    return {**kept, **needed, **more}


def refused(variables: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run `serve` where it can not start; return its exit code and what it said."""
    ended = subprocess.run(
        [PROGRAM, "serve", "--port", "0", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


@dataclass
class Served:
    """A running `serve`.

    Attributes:
        process: The process.
        url: ``http://127.0.0.1:port``.
        log_path: Its standard error.
    """

    process: subprocess.Popen[bytes]
    url: str
    log_path: Path

    @property
    def websocket_url(self) -> str:
        """Where sockets are opened, without the key."""
        return self.url.replace("http", "ws", 1) + "/realtime/v1/websocket?vsn=2.0.0&apikey="

    def ready(self) -> tuple[int, dict[str, object]]:
        """Ask `/ready`; return status and body."""
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def metrics(self) -> dict[str, float]:
        """Read `/metrics`: samples by name with labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def end(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def spawned(
    variables: dict[str, str],
    folder: Path,
    *command: str,
    port: int | None = None,
    open_files: int | None = None,
) -> Iterator[Served]:
    """Start a command of `heliograph`, maybe with a limit of open files; end it with the block."""
    limited = () if open_files is None else ("prlimit", f"--nofile={open_files}:{open_files}")
    port = port or free_port()
    log_path = folder / "command.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*limited, PROGRAM, *command, "--port", str(port)],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Served(process, f"http://127.0.0.1:{port}", log_path)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@contextlib.contextmanager
def serving(
    database_url: str,
    folder: Path,
    *,
    port: int | None = None,
    open_files: int | None = None,
    **more: str,
) -> Iterator[Served]:
    """Run `serve --migrate` on a database until the block ends."""
    variables = environment(database_url, **more)
    with spawned(
        variables, folder, "serve", "--migrate", port=port, open_files=open_files
    ) as served:

        def is_said() -> bool:
            assert served.process.poll() is None, served.log_path.read_text()
            return f"serving on {served.url}" in served.log_path.read_text()

        ProcessDeadline(30).require(is_said, "the server to serve")
        yield served
