"""One PostgreSQL cluster: make it, start it, stop it. Blocking; `embedded.py` runs it in threads.

Invariants:

* a cluster is complete or absent: ``initdb`` works in a folder of another name;
* every wait has a deadline;
* ``postmaster.pid`` is removed only when no process of the cluster lives (its removal while one
  lives would allow two servers on the same files);
* only processes whose working folder is this cluster's are ever signalled.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from heliograph.errors import PortTakenError, StorageError, UnavailableError
from heliograph.limits import (
    POSTGRES_ORPHANS_PATIENCE_S,
    POSTGRES_ORPHANS_TIMEOUT_S,
    POSTGRES_START_TIMEOUT_S,
    POSTGRES_STOP_TIMEOUT_S,
)
from heliograph.postgres.binaries import PostgresBinaries
from heliograph.postgres.postmaster import (
    Postmaster,
    cluster_processes,
    live_postmaster,
    pid_file,
    read_postmaster,
    serves_cluster,
)
from heliograph.postgres.process_account import ProcessAccount
from heliograph.postgres.process_deadline import ProcessDeadline

#: The superuser that ``initdb`` makes.
SUPERUSER: Final = "postgres"

#: Seconds for ``initdb`` (0.5 s measured; a slow disk syncs for long).
_INITDB_TIMEOUT_S: Final = 120.0

#: Seconds for each harder signal after the fast shutdown has not worked.
_HARDER_STOP_TIMEOUT_S: Final = 5.0

#: First version whose ``initdb`` knows the built-in locale provider.
_BUILTIN_LOCALE_MAJOR: Final = 17

#: Characters of the server's log put into an error.
_LOG_TAIL_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlace:
    """Where a cluster lives and with what it is run.

    Attributes:
        data_dir: PostgreSQL's own data directory (PGDATA).
        log_path: File that gets the server's log.
        binaries: Server programs; their major version must be the cluster's.
        account: How the programs are started.
    """

    data_dir: Path
    log_path: Path
    binaries: PostgresBinaries
    account: ProcessAccount


class Cluster:
    """One data directory and the main process that serves it, if any."""

    def __init__(
        self, place: ClusterPlace, *, is_abandoned: Callable[[], bool] = lambda: False
    ) -> None:
        """Remember the place; nothing is touched yet.

        Args:
            place: Where and with what.
            is_abandoned: Asked while a start waits; once true, the start gives up.
        """
        self.place = place
        self._is_abandoned = is_abandoned
        self._data_dir = place.data_dir.absolute()
        self._child: subprocess.Popen[bytes] | None = None

    def is_initialized(self) -> bool:
        """Return whether the cluster has been made."""
        return (self._data_dir / "PG_VERSION").is_file()

    def initialize(self, password: str, *, sync: bool = True) -> None:
        """Make the cluster: superuser `postgres`, UTF-8, passwords by SCRAM for everybody.

        Args:
            password: The superuser's password; it travels in a file of mode 0600.
            sync: Whether ``initdb`` waits for the disk. Only a test that throws the cluster away
                may say no.

        Raises:
            StorageError: If ``initdb`` fails; the message holds what it said.
        """
        unfinished = self._data_dir.with_name(f"{self._data_dir.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self.place.account.own(unfinished)
        password_path = unfinished.with_name("superuser-password.unfinished")
        password_path.unlink(missing_ok=True)
        try:
            with _open_private(password_path) as file:
                file.write(password.encode())
            self.place.account.own(password_path)
            self._run_initdb(unfinished, password_path, sync=sync)
        finally:
            password_path.unlink(missing_ok=True)
        unfinished.rename(self._data_dir)

    def take_ownership(self) -> None:
        """Give the cluster's files to the account that runs it.

        Needed when root starts a cluster in another way than the last time: in a user namespace
        the files are root's, through an existing account they are that account's. Symbolic links
        are not followed: nothing outside the cluster changes its owner.
        """
        wanted = self.place.account.user_id or 0
        if os.geteuid() != 0 or self._data_dir.stat().st_uid == wanted:
            return
        group = self.place.account.group_id or 0
        os.chown(self._data_dir, wanted, group)
        for folder, folders, files in os.walk(self._data_dir):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, wanted, group, follow_symlinks=False)

    def live(self) -> Postmaster | None:
        """Return the main process that serves the cluster now, or None."""
        self._reap()
        return live_postmaster(self._data_dir)

    def is_served_by(self, postmaster: Postmaster) -> bool:
        """Return whether this very process still lives and serves the cluster."""
        child = self._child
        if child is not None and child.pid == postmaster.pid:
            is_alive = child.poll() is None
            self._reap()
            return is_alive
        return serves_cluster(postmaster.pid, self._data_dir)

    def start(
        self,
        port: int,
        settings: Mapping[str, str],
        *,
        timeout_s: float = POSTGRES_START_TIMEOUT_S,
    ) -> Postmaster:
        """Start the server and wait until it accepts connections on 127.0.0.1.

        Leftovers of a server that was killed are cleared away first: its children are waited for
        (and told to quit when they do not notice), a stale ``postmaster.pid`` is removed.

        Raises:
            PortTakenError: If the port is in use.
            UnavailableError: If the server is not ready in `timeout_s`; it is stopped again.
            StorageError: If the server ends by itself; the message holds the end of its log.
        """
        self._clear_leftovers()
        log_offset = self.place.log_path.stat().st_size if self.place.log_path.exists() else 0
        self._spawn(port, settings)
        try:
            return self._wait_ready(timeout_s, log_offset)
        except BaseException:
            self._kill_child()
            raise

    def stop(self, postmaster: Postmaster, *, timeout_s: float = POSTGRES_STOP_TIMEOUT_S) -> None:
        """Stop the server: fast shutdown first, harder signals only after `timeout_s`.

        Does nothing if the process is gone or its number belongs to another program.

        Raises:
            StorageError: If the process outlives even SIGKILL (stuck in the kernel).
        """
        for number, seconds in (
            (signal.SIGINT, timeout_s),
            (signal.SIGQUIT, _HARDER_STOP_TIMEOUT_S),
            (signal.SIGKILL, _HARDER_STOP_TIMEOUT_S),
        ):
            if not self.is_served_by(postmaster):
                return
            _send_signal(postmaster.pid, number)
            if ProcessDeadline(seconds).wait_until(lambda: not self.is_served_by(postmaster)):
                return
        message = f"PostgreSQL process {postmaster.pid} does not end"
        raise StorageError(message)

    def _run_initdb(self, folder: Path, password_path: Path, *, sync: bool) -> None:
        said = ""
        for locale in self._locale_choices():
            arguments = [
                f"--pgdata={folder}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_path}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-instructions",
                *locale,
                *(() if sync else ("--no-sync",)),
            ]
            try:
                answer = self.place.account.run(
                    self.place.binaries.initdb, *arguments, timeout_s=_INITDB_TIMEOUT_S
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                message = f"initdb of {self.place.binaries.describe()} did not run: {error}"
                raise StorageError(message) from error
            if answer.returncode == 0:
                return
            said = answer.stderr.strip()
            if "locale" not in said:
                break
        message = f"initdb of {self.place.binaries.describe()} failed: {said}"
        raise StorageError(message)

    def _locale_choices(self) -> list[tuple[str, ...]]:
        # The built-in provider sorts alike on every machine; older versions ask the C library,
        # whose C.UTF-8 may be missing in a small image.
        if self.place.binaries.major >= _BUILTIN_LOCALE_MAJOR:
            return [("--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8")]
        return [("--locale=C.UTF-8",), ("--locale=C",)]

    def _spawn(self, port: int, settings: Mapping[str, str]) -> None:
        arguments = ["-D", str(self._data_dir)]
        for name, value in {
            "lc_messages": "C",
            **settings,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
        }.items():
            arguments += ["-c", f"{name}={value}"]
        with _open_private(self.place.log_path) as log:
            self._child = self.place.account.spawn(
                self.place.binaries.postgres, *arguments, log=log
            )

    def _wait_ready(self, timeout_s: float, log_offset: int) -> Postmaster:
        child = self._child
        deadline = ProcessDeadline(timeout_s)

        def is_decided() -> bool:
            if self._is_abandoned():
                message = "the start of PostgreSQL was abandoned"
                raise UnavailableError(message)
            if child is None or child.poll() is not None:
                return True
            postmaster = read_postmaster(self._data_dir)
            return postmaster is not None and postmaster.pid == child.pid and postmaster.is_ready

        deadline.require(is_decided, f"{self.place.binaries.describe()} to accept connections")
        postmaster = read_postmaster(self._data_dir)
        if child is None or child.poll() is not None or postmaster is None:
            raise self._failed_start(log_offset)
        return postmaster

    def _failed_start(self, log_offset: int) -> StorageError | PortTakenError:
        with self.place.log_path.open("rb") as log:
            log.seek(log_offset)
            said = log.read().decode(errors="replace")[-_LOG_TAIL_CHARACTERS:].strip()
        if "could not bind" in said:
            message = "the port that PostgreSQL was given is in use"
            return PortTakenError(message)
        message = f"{self.place.binaries.describe()} did not start; {self.place.log_path}: {said}"
        return StorageError(message)

    def _clear_leftovers(self) -> None:
        """Wait for the children of a killed server, then remove its ``postmaster.pid``.

        Raises:
            UnavailableError: If they do not end.
        """
        self._reap()
        if not Path("/proc").is_dir() or live_postmaster(self._data_dir) is not None:
            return  # PostgreSQL itself decides, by its own checks
        deadline = ProcessDeadline(POSTGRES_ORPHANS_TIMEOUT_S)
        patience = ProcessDeadline(POSTGRES_ORPHANS_PATIENCE_S)
        has_been_told = False

        def are_gone() -> bool:
            nonlocal has_been_told
            pids = cluster_processes(self._data_dir)
            if pids and not has_been_told and patience.is_over():
                has_been_told = True
                for pid in pids:
                    _send_signal(pid, signal.SIGQUIT)
            return not pids

        deadline.require(are_gone, "the processes of a killed PostgreSQL to end")
        pid_file(self._data_dir).unlink(missing_ok=True)

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _kill_child(self) -> None:
        child = self._child
        if child is None:
            return
        for number in (signal.SIGQUIT, signal.SIGKILL):
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_HARDER_STOP_TIMEOUT_S)
                break
        self._reap()


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` if nobody listens there on 127.0.0.1, else a free port."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    message = "no free TCP port on 127.0.0.1"
    raise UnavailableError(message)


def _open_private(path: Path) -> BinaryIO:
    """Open a file for appending that only we may read; made if absent."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _send_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
