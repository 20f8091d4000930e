"""The account PostgreSQL runs as: never root, never one that had to be made."""

import os
import pwd
import sys
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError
from heliograph.postgres.process_account import (
    ProcessAccount,
    choose_account,
    existing_account,
    namespace_account,
)

OTHER = ProcessAccount(description="account other", user_id=4711, group_id=4712)


def test_an_ordinary_user_runs_it_directly(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    account = choose_account()
    assert account.command_prefix == ()
    assert account.user_id is None


def test_root_falls_back_to_an_existing_account(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")  # no unshare
    assert namespace_account() is None
    assert choose_account().user_id == pwd.getpwnam("nobody").pw_uid


def test_an_account_that_does_not_exist_is_not_made():
    with pytest.raises(ConfigurationError, match="ordinary user"):
        existing_account("heliograph-no-such-account")


def test_root_is_no_unprivileged_account():
    with pytest.raises(ConfigurationError, match="is root"):
        existing_account("root")


def test_programs_get_neither_our_secrets_nor_our_folder(monkeypatch):
    monkeypatch.setenv("HELIOGRAPH_JWT_SECRET", "planted")
    monkeypatch.setenv("PGPORT", "1")
    code = "import os; print(sorted(os.environ), os.getcwd(), os.environ['LC_ALL'])"
    account = ProcessAccount(description="this user")
    said = account.run(Path(sys.executable), "-c", code, timeout_s=20).stdout
    assert "HELIOGRAPH" not in said
    assert "PGPORT" not in said
    assert said.strip().endswith("/ C")


def test_a_program_that_is_not_there_can_not_be_run(tmp_path):
    assert not ProcessAccount(description="this user").can_run(tmp_path / "nothing")


def test_the_topmost_folder_in_the_way_is_named(tmp_path):
    tmp_path.chmod(0o755)
    open_folder = tmp_path / "open"
    closed = open_folder / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    inner.chmod(0o700)
    blocking = OTHER.blocking_folder(inner / "postgres")
    # pytest's own folders may be in the way already, as their mode is 0700.
    assert blocking is not None
    assert blocking in (closed, *tmp_path.parents)
    assert ProcessAccount(description="this user").blocking_folder(inner / "postgres") is None


@pytest.mark.parametrize(
    ("mode", "user_id", "group_id", "is_blocked"),
    [
        (0o100, "owner", 1, False),
        (0o011, "owner", 1, True),
        (0o010, 1, "group", False),
        (0o101, 1, "group", True),
        (0o001, 1, 1, False),
        (0o110, 1, 1, True),
    ],
)
def test_the_mode_that_counts_is_that_of_owner_group_or_others(
    monkeypatch, tmp_path, mode, user_id, group_id, is_blocked
):
    folder = tmp_path / "folder"
    folder.mkdir()
    status = folder.stat()
    account = ProcessAccount(
        description="account",
        user_id=status.st_uid if user_id == "owner" else status.st_uid + 1,
        group_id=status.st_gid if group_id == "group" else status.st_gid + 1,
    )
    real_stat = Path.stat

    def stat_of(path: Path, **options: bool) -> os.stat_result:
        found = real_stat(path, **options)
        fields = list(found)
        fields[0] = mode if path == folder else 0o40777
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "stat", stat_of)
    assert account.blocking_folder(folder / "postgres") == (folder if is_blocked else None)
