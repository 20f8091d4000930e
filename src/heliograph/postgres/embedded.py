"""A PostgreSQL of our own, for ``heliograph dev``: made on first use, started, stopped, adopted.

One worked example, a start after our process was killed with SIGKILL while PostgreSQL went on::

    async with EmbeddedPostgres(EmbeddedOptions(data_dir=path)) as postgres:
        DataFolder.open            the dead process' lock is free; ours now
        choose_binaries            version of the cluster in the folder
        Cluster.live               postmaster.pid names a living process of this cluster
        _answers_as_ours           our password opens it, it serves our folder: adopted
        postgres.running.url       … work …
    Cluster.stop                   fast shutdown
    DataFolder.close

Waits run in threads, so the event loop is free. Cancelling a start ends the attempt and stops what
it started. PostgreSQL processes that were neither started nor adopted here are never stopped.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import psycopg

from heliograph.config import Secret
from heliograph.errors import ConfigurationError, PortTakenError, StorageError, UnavailableError
from heliograph.limits import (
    POSTGRES_RESTARTS_MAX,
    POSTGRES_RESTARTS_WINDOW_S,
    POSTGRES_START_TIMEOUT_S,
)
from heliograph.postgres.binaries import (
    PostgresBinaries,
    choose_binaries,
    copy_binaries,
    find_binaries,
)
from heliograph.postgres.cluster import SUPERUSER, Cluster, ClusterPlace, free_port
from heliograph.postgres.data_folder import DataFolder, FolderSecrets
from heliograph.postgres.extensions import extension_advice, lacking_extensions
from heliograph.postgres.postmaster import Postmaster
from heliograph.postgres.process_account import ProcessAccount, choose_account
from heliograph.postgres.process_deadline import ProcessDeadline

#: Settings of the embedded server. They are given on its command line, so they hold whatever the
#: cluster's own configuration file says.
EMBEDDED_SETTINGS: Final[Mapping[str, str]] = {
    "cluster_name": "heliograph",
    "wal_level": "logical",
    "max_replication_slots": "16",
    "max_wal_senders": "16",
    "max_connections": "100",
    # A commit is answered when it is on disk; then it is also sent at once to the reader.
    "synchronous_commit": "on",
    # Bounds the delay of rows written with synchronous_commit=off (default 200 ms).
    "wal_writer_delay": "10ms",
    # A slot whose reader stays away may keep this much WAL, not the whole disk.
    "max_slot_wal_keep_size": "2GB",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements may hold passwords and row values; the message alone is logged.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "jit": "off",
}

#: Seconds for one trial connection, and between two looks at a running server.
_CONNECT_TIMEOUT_S: Final = 5
_LOOK_INTERVAL_S: Final = 0.1

#: Ports tried one after another when somebody else is quicker.
_PORT_ATTEMPTS_MAX: Final = 5

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedOptions:
    """How the embedded PostgreSQL is to be run.

    Attributes:
        data_dir: Heliograph's data folder; made if absent.
        binaries: Server programs in order of preference; None means those found on this machine.
        account: How they are started; None means what fits the present user and machine.
        settings: PostgreSQL settings beyond or instead of `EMBEDDED_SETTINGS`.
        extensions: Extensions that must be available; checked before anything is started. A new
            cluster is made by the first programs that have all of them.
    """

    data_dir: Path
    binaries: tuple[PostgresBinaries, ...] | None = None
    account: ProcessAccount | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPostgres:
    """A PostgreSQL that accepts connections.

    Attributes:
        url: URL of the database `postgres` for the superuser, with the password.
        pid: Process id of the main process.
        port: TCP port on 127.0.0.1.
        binaries: The programs it runs on.
        was_adopted: Whether it was running already, left behind by a killed process of ours.
        secrets: The folder's secrets, for `Settings.for_dev`.
    """

    url: Secret
    pid: int
    port: int
    binaries: PostgresBinaries
    was_adopted: bool
    secrets: FolderSecrets


class EmbeddedPostgres:
    """Runs a PostgreSQL of our own while its ``async with`` block lasts."""

    def __init__(self, options: EmbeddedOptions) -> None:
        """Remember the options; nothing is touched yet."""
        self._options = options
        self._folder: DataFolder | None = None
        self._cluster: Cluster | None = None
        self._postmaster: Postmaster | None = None
        self._running: RunningPostgres | None = None
        self._is_abandoned = threading.Event()

    @property
    def running(self) -> RunningPostgres:
        """Return the present server.

        Raises:
            UnavailableError: Outside the ``async with`` block.
        """
        if self._running is None:
            message = "the embedded PostgreSQL is not running"
            raise UnavailableError(message)
        return self._running

    async def __aenter__(self) -> Self:
        """Lock the folder, make the cluster if it is absent, start or adopt its server.

        Raises:
            ConfigurationError: If the folder is in use or not ours, or no PostgreSQL is found, or
                an extension is lacking.
            StorageError: If PostgreSQL does not start; the message holds the end of its log.
            UnavailableError: If it is not ready in time.
        """
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._is_abandoned.clear()
            await self._in_thread(self._close)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server, release the folder.

        Raises:
            StorageError: If the server can not be stopped.
        """
        await self._in_thread(self._close)

    async def wait_until_gone(self) -> None:
        """Wait until the server's main process has ended, for whatever reason."""
        while self._cluster is not None and self._postmaster is not None:
            if not self._cluster.is_served_by(self._postmaster):
                return
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def restart(self) -> RunningPostgres:
        """Start the server again, on the same port, after it has ended by itself.

        Raises:
            StorageError: If it does not start.
            UnavailableError: If its port was taken meanwhile, or it is not ready in time.
        """
        port = self.running.port
        await self._in_thread(lambda: self._start(port))
        return self.running

    async def keep_running(self, on_restart: Callable[[RunningPostgres], None]) -> None:
        """Restart the server whenever it ends; returns only by an error or cancellation.

        Args:
            on_restart: Called after each restart, for a log line.

        Raises:
            StorageError: If it ended more than POSTGRES_RESTARTS_MAX times within
                POSTGRES_RESTARTS_WINDOW_S: something is wrong that a restart does not cure.
        """
        recent: list[ProcessDeadline] = []
        while True:
            await self.wait_until_gone()
            recent = [restart for restart in recent if not restart.is_over()]
            if len(recent) >= POSTGRES_RESTARTS_MAX:
                message = (
                    f"PostgreSQL ended {len(recent) + 1} times within"
                    f" {POSTGRES_RESTARTS_WINDOW_S:g} s; see {self._options.data_dir}/postgres.log"
                )
                raise StorageError(message)
            recent.append(ProcessDeadline(POSTGRES_RESTARTS_WINDOW_S))
            on_restart(await self.restart())

    def _open(self) -> None:
        self._folder = folder = DataFolder.open(self._options.data_dir)
        folder.require_same_user()
        secrets = folder.load_secrets()
        account = self._options.account or choose_account()
        binaries = self._binaries(folder, account)
        place = ClusterPlace(
            data_dir=folder.cluster_dir,
            log_path=folder.log_path,
            binaries=binaries,
            account=account,
        )
        self._cluster = cluster = Cluster(place, is_abandoned=self._is_abandoned.is_set)
        if not cluster.is_initialized():
            cluster.initialize(secrets.postgres_password)
        cluster.take_ownership()
        if not self._adopt(secrets):
            folder.rotate_log()
            self._start_anywhere(secrets.port)

    def _binaries(self, folder: DataFolder, account: ProcessAccount) -> PostgresBinaries:
        candidates = self._options.binaries
        if candidates is None:
            candidates = tuple(find_binaries())
        extensions = self._options.extensions
        complete = [each for each in candidates if not lacking_extensions(extensions, each)]
        binaries = choose_binaries([*complete, *candidates], major=folder.cluster_major())
        advice = extension_advice(extensions, binaries, candidates)
        if advice is not None:
            raise ConfigurationError(advice)
        if account.user_id is None:
            return binaries
        return _reachable_binaries(folder, account, binaries)

    def _adopt(self, secrets: FolderSecrets) -> bool:
        """Take over a server that runs already; wait for one that is just starting or stopping."""
        cluster = self._cluster
        if cluster is None or cluster.live() is None:
            return False
        deadline = ProcessDeadline(POSTGRES_START_TIMEOUT_S)

        def is_decided() -> bool:
            if self._is_abandoned.is_set():
                message = "the start of PostgreSQL was abandoned"
                raise UnavailableError(message)
            postmaster = cluster.live()
            return postmaster is None or _answers_as_ours(postmaster, secrets, cluster)

        deadline.require(is_decided, "a PostgreSQL that runs on the data folder to answer or end")
        postmaster = cluster.live()
        if postmaster is None:
            return False
        self._set_running(postmaster, was_adopted=True)
        return True

    def _start_anywhere(self, preferred_port: int | None) -> None:
        for _attempt in range(_PORT_ATTEMPTS_MAX):
            with contextlib.suppress(PortTakenError):
                self._start(free_port(preferred_port))
                return
        message = f"{_PORT_ATTEMPTS_MAX} free ports were taken by others before PostgreSQL had them"
        raise PortTakenError(message)

    def _start(self, port: int) -> None:
        cluster = self._cluster
        if cluster is None:
            message = "the embedded PostgreSQL is closed"
            raise UnavailableError(message)
        settings = {**EMBEDDED_SETTINGS, **self._options.settings}
        self._set_running(cluster.start(port, settings), was_adopted=False)

    def _set_running(self, postmaster: Postmaster, *, was_adopted: bool) -> None:
        folder, cluster = self._folder, self._cluster
        if folder is None or cluster is None:
            message = "the embedded PostgreSQL is closed"
            raise UnavailableError(message)
        self._postmaster = postmaster
        folder.remember_port(postmaster.port)
        secrets = folder.load_secrets()
        self._running = RunningPostgres(
            url=_superuser_url(secrets, postmaster.port),
            pid=postmaster.pid,
            port=postmaster.port,
            binaries=cluster.place.binaries,
            was_adopted=was_adopted,
            secrets=secrets,
        )

    def _close(self) -> None:
        try:
            if self._cluster is not None and self._postmaster is not None:
                self._cluster.stop(self._postmaster)
        finally:
            self._cluster = self._postmaster = self._running = None
            if self._folder is not None:
                self._folder.close()
                self._folder = None

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Run blocking work; when cancelled, ask it to give up and wait for that."""
        future = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._is_abandoned.set()
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen: the cancellation is what is reported
            raise


def _reachable_binaries(
    folder: DataFolder, account: ProcessAccount, binaries: PostgresBinaries
) -> PostgresBinaries:
    """Make the folder and the programs reachable for another account than ours."""
    folder.let_pass()
    blocking = account.blocking_folder(folder.cluster_dir)
    if blocking is not None:
        message = (
            f"PostgreSQL must run as {account.description} here (root is refused and user"
            f" namespaces are forbidden), but that account may not pass through {blocking}. Choose"
            " a data folder elsewhere, or start Heliograph as an ordinary user."
        )
        raise ConfigurationError(message)
    if account.can_run(binaries.postgres):
        return binaries
    return copy_binaries(binaries, folder.binaries_dir)


def _superuser_url(secrets: FolderSecrets, port: int) -> Secret:
    password = quote(secrets.postgres_password, safe="")
    return Secret(f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres")


def _answers_as_ours(postmaster: Postmaster, secrets: FolderSecrets, cluster: Cluster) -> bool:
    if not postmaster.is_ready:
        return False
    url = _superuser_url(secrets, postmaster.port).reveal()
    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            row = connection.execute("select current_setting('data_directory')").fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and Path(str(row[0])).resolve() == cluster.place.data_dir.resolve()
