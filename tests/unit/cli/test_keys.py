"""Which keys `heliograph keys` prints: those of one server."""

import json

import pytest

from heliograph.cli.keys import known_keys
from heliograph.config import Settings
from heliograph.errors import ConfigurationError

SECRET = "a-secret-of-the-environment-with-enough-bytes"
FOLDER = {
    "postgres_password": "secret",
    "jwt_secret": "a-secret-of-the-data-folder-with-enough-bytes",
    "publishable_key": "sb_publishable_folder",
    "secret_key": "sb_secret_folder",
    "port": 5555,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secrets.json").write_text(json.dumps(FOLDER))
    return tmp_path


def known(folder, **environ: str):
    return known_keys(Settings.from_environ(environ), folder)


def test_without_a_secret_in_the_environment_the_folder_s_keys_are_printed(folder):
    found = known(folder)
    assert list(found) == [
        "anon_key",
        "service_role_key",
        "publishable_key",
        "secret_key",
        "jwt_secret",
    ]
    assert {name: found[name] for name in ("publishable_key", "secret_key", "jwt_secret")} == {
        name: FOLDER[name] for name in ("publishable_key", "secret_key", "jwt_secret")
    }


def test_the_folder_s_keys_are_not_printed_beside_the_secret_of_another_server(folder):
    found = known(folder, HELIOGRAPH_JWT_SECRET=SECRET)
    assert list(found) == ["anon_key", "service_role_key", "jwt_secret"]
    assert found["jwt_secret"] == SECRET


def test_nothing_at_all_is_an_error_that_says_what_to_set(tmp_path):
    with pytest.raises(ConfigurationError, match="HELIOGRAPH_JWT_SECRET"):
        known(tmp_path / "absent")
