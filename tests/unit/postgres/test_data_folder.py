"""The data folder: one process at a time, secrets complete or absent, nobody else's folder."""

import os
import subprocess
import sys

import msgspec
import pytest

from heliograph.config import Secret
from heliograph.errors import ConfigurationError
from heliograph.limits import POSTGRES_LOG_BYTES_MAX
from heliograph.postgres.data_folder import DataFolder


@pytest.fixture
def folder(tmp_path):
    opened = DataFolder.open(tmp_path / "deep" / "folder")
    yield opened
    opened.close()


def test_a_new_folder_is_ours_alone(folder):
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.load_secrets()
    for path in folder.path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_process_is_refused_and_told_the_holder(folder):
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        DataFolder.open(folder.path)


def test_a_closed_folder_can_be_opened_again(folder):
    folder.close()
    folder.close()
    DataFolder.open(folder.path).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import sys, pathlib; from heliograph.postgres.data_folder import DataFolder;"
        " kept = DataFolder.open(pathlib.Path(sys.argv[1])); print('locked', flush=True);"
        " sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "folder")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigurationError, match=f"process {holder.pid}"):
            DataFolder.open(tmp_path / "folder")
        holder.kill()
    DataFolder.open(tmp_path / "folder").close()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        DataFolder.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="can not be used"):
        DataFolder.open(tmp_path / "file")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x7fb", "a\x85b", "a\u2028b", "\udcff"])
def test_a_folder_whose_name_does_not_fit_into_a_line_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="control characters"):
        DataFolder.open(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["Bücher und 'Brillen' \"neu\"", "眼鏡\u3000店", "Prix\u00a0: 5", "👩\u200d💻"]
)
def test_a_folder_may_have_any_name_that_people_read(tmp_path, name):
    DataFolder.open(tmp_path / name).close()


def test_secrets_are_made_once_and_kept(folder):
    made = folder.load_secrets()
    assert len(made.jwt_secret) >= 32
    assert made.publishable_key.startswith("sb_publishable_")
    assert made.secret_key.startswith("sb_secret_")
    folder.remember_port(5433)
    assert folder.load_secrets() == msgspec.structs.replace(made, port=5433)


def test_two_folders_have_different_secrets(tmp_path):
    one, two = DataFolder.open(tmp_path / "1"), DataFolder.open(tmp_path / "2")
    first, second = one.load_secrets(), two.load_secrets()
    one.close()
    two.close()
    for name in ("postgres_password", "jwt_secret", "publishable_key", "secret_key"):
        assert getattr(first, name) != getattr(second, name)


def test_secrets_are_not_shown(folder):
    made = folder.load_secrets()
    development = made.for_development(Secret("postgresql://a:word@b/c"))
    shown = repr(made) + repr(development)
    secrets = (made.postgres_password, made.jwt_secret, made.publishable_key, made.secret_key)
    assert not any(secret in shown for secret in secrets)
    assert "word" not in shown


@pytest.mark.parametrize("content", ["", "{}", '{"postgres_password": "planted"}', "planted"])
def test_a_damaged_secrets_file_is_named_and_not_shown(folder, content):
    (folder.path / "secrets.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"secrets\.json is damaged") as raised:
        folder.load_secrets()
    assert "planted" not in str(raised.value)


def test_secrets_are_not_made_anew_beside_an_existing_cluster(folder):
    folder.cluster_dir.mkdir()
    with pytest.raises(ConfigurationError, match="is missing"):
        folder.load_secrets()


def test_the_version_of_the_cluster_is_read(folder):
    assert folder.cluster_major() is None
    folder.cluster_dir.mkdir()
    (folder.cluster_dir / "PG_VERSION").write_text("16\n")
    assert folder.cluster_major() == 16
    (folder.cluster_dir / "PG_VERSION").write_text("new\n")
    with pytest.raises(ConfigurationError, match="damaged"):
        folder.cluster_major()


def test_a_log_that_is_too_large_is_put_aside(folder):
    folder.rotate_log()
    folder.log_path.write_bytes(b"x" * POSTGRES_LOG_BYTES_MAX)
    folder.rotate_log()
    assert folder.log_path.exists()
    folder.log_path.write_bytes(b"x" * (POSTGRES_LOG_BYTES_MAX + 1))
    folder.rotate_log()
    assert not folder.log_path.exists()
    assert folder.log_path.with_name("postgres.log.1").exists()


def test_root_leaves_an_ordinary_users_folder_alone(tmp_path, monkeypatch):
    folder = DataFolder.open(tmp_path / "data")
    folder.require_same_user()
    folder.cluster_dir.mkdir()
    if os.geteuid() == 0:
        folder.require_same_user()
        for path in (folder.path, folder.cluster_dir):
            os.chown(path, 65_533, 65_533)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigurationError, match=r"was made by user .+; run Heliograph as that"):
        folder.require_same_user()
    if folder.path.stat().st_uid == 65_533:
        os.chown(folder.path, 0, 0)
        folder.require_same_user()
    folder.close()
