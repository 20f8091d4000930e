"""Which keys `heliograph keys` prints: those of one server."""

import json

import pytest

from heliograph.cli.dev import shown_keys
from heliograph.cli.keys import known_keys
from heliograph.config import Settings
from heliograph.errors import ConfigurationError
from heliograph.server.authentication import make_keys
from heliograph.server.system_clock import SystemClock

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


@pytest.mark.parametrize(
    "environ",
    [
        {"HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"aud": "shop", "iss": "https://issuer.example"}'},
        {"HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"tenant": {"id": 7}}'},
        {"HELIOGRAPH_ROLE_CLAIM": "app_metadata.role"},
    ],
)
def test_the_server_accepts_the_keys_that_are_minted(tmp_path, environ):
    settings = Settings.from_environ({"HELIOGRAPH_JWT_SECRET": SECRET, **environ})
    server = make_keys(settings, SystemClock())
    printed = known_keys(settings, tmp_path)
    for name, role in (("anon_key", "anon"), ("service_role_key", "service_role")):
        assert server.verify(printed[name]).role == role
        shown = shown_keys(settings)
        assert shown[name] == printed[name]


def test_no_key_is_minted_for_a_role_that_the_server_does_not_accept(tmp_path):
    settings = Settings.from_environ(
        {"HELIOGRAPH_JWT_SECRET": SECRET, "HELIOGRAPH_ROLES": "authenticated,service_role"}
    )
    assert list(known_keys(settings, tmp_path)) == ["service_role_key", "jwt_secret"]
    assert shown_keys(settings)["anon_key"] == ""


def test_nothing_at_all_is_an_error_that_says_what_to_set(tmp_path):
    with pytest.raises(ConfigurationError, match="HELIOGRAPH_JWT_SECRET"):
        known(tmp_path / "absent")
