"""Which keys `heliograph keys` prints: those of one server."""

import json
from uuid import UUID

import jwt
import pytest

from heliograph.cli.dev import shown_keys
from heliograph.cli.keys import MintRequest, known_keys, mint
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


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


async def minted(tmp_path, role=None, claims=None, person=None, **environ):
    settings = Settings.from_environ({"HELIOGRAPH_JWT_SECRET": SECRET, **environ})
    return await mint(MintRequest(person, role, claims or {}, 60), settings, tmp_path)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("role", "environ", "accepted"),
    [
        ("postgres", {}, "anon, authenticated, service_role"),
        ("Anon", {}, "anon, authenticated, service_role"),
        ("anon", {"HELIOGRAPH_ROLES": "staff"}, "staff"),
    ],
)
async def test_a_role_that_the_server_does_not_accept_is_refused(tmp_path, role, environ, accepted):
    with pytest.raises(ConfigurationError) as refused:
        await minted(tmp_path, role, **environ)
    assert f"`{role}` is not in HELIOGRAPH_ROLES ({accepted})" in str(refused.value)


@pytest.mark.asyncio
async def test_a_user_s_role_that_the_server_does_not_accept_is_refused(tmp_path):
    user = str(UUID(int=7))
    with pytest.raises(ConfigurationError, match="`authenticated` is not in HELIOGRAPH_ROLES"):
        await minted(tmp_path, person=user, HELIOGRAPH_ROLES="staff")
    token = await minted(tmp_path, "staff", person=user, HELIOGRAPH_ROLES="staff")
    assert (claims_of(token)["sub"], claims_of(token)["role"]) == (user, "staff")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"role": "service_role"}, "`role` is set by --role"),
        ({"role": "anon"}, "`role` is set by --role"),
        ({"app": {"role": "anon"}}, "`app.role` is set by --role"),
        ({"app.role": "anon"}, "`app.role` is set by --role"),
        ({"exp": 1}, "`exp` is set by --ttl"),
        ({"iat": 1}, "`iat` is the time of minting"),
        ({"aud": "bank"}, "`aud` is set by HELIOGRAPH_JWT_CLAIM_VALIDATORS"),
    ],
)
async def test_claims_that_something_else_sets_are_refused_not_dropped(tmp_path, claims, told):
    environ = {
        "HELIOGRAPH_ROLE_CLAIM": "app.role",
        "HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"aud": "shop"}',
    }
    with pytest.raises(ConfigurationError, match="--claims") as refused:
        await minted(tmp_path, "anon", claims, **environ)
    assert told in str(refused.value)


@pytest.mark.asyncio
async def test_all_other_claims_are_in_the_token_and_it_is_good(tmp_path):
    claims = {"sub": "u", "nbf": 5, "iss": "me", "aud": "shop", "app": {"branch": 7}}
    environ = {
        "HELIOGRAPH_ROLE_CLAIM": "app.role",
        "HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"aud": "shop"}',
    }
    token = await minted(tmp_path, "anon", claims, **environ)
    assert claims.items() <= claims_of(token).items()
    settings = Settings.from_environ({"HELIOGRAPH_JWT_SECRET": SECRET, **environ})
    assert make_keys(settings, SystemClock()).verify(token).subject == "u"
