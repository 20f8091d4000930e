"""Who `heliograph tail` speaks as, and where it finds the secrets."""

import json

import jwt
import psycopg
import pytest

from heliograph import limits
from heliograph.cli.tail_keys import (
    MintedToken,
    StaticKey,
    TailSecrets,
    read_secrets,
    service_keys,
    user_keys,
)
from heliograph.config import Secret, Settings
from heliograph.errors import (
    ConfigurationError,
    StorageError,
    UnavailableError,
    UnknownUserError,
)

SECRET = "a-secret-of-the-environment-with-enough-bytes"
FOLDER_SECRET = "a-secret-of-the-data-folder-with-enough-bytes"
USER = "12000000-0000-4000-8000-000000001003"
FOLDER = {
    "postgres_password": "p@ss/word",
    "jwt_secret": FOLDER_SECRET,
    "publishable_key": "sb_publishable_folder",
    "secret_key": "sb_secret_folder",
    "port": 5555,
}


class FixedClock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s


def claims_of(token: str | None, secret: str = SECRET) -> dict:
    assert token is not None
    options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    return jwt.decode(token, secret, algorithms=["HS256"], options=options)


def secrets(**known: Secret | None) -> TailSecrets:
    nothing: dict = dict.fromkeys(("jwt_secret", "database_url", "api_key", "service_key"))
    return TailSecrets(**{**nothing, **known})


def read(tmp_path, **environ: str) -> TailSecrets:
    return read_secrets(Settings.from_environ(environ), tmp_path)


def test_without_anything_nothing_is_known(tmp_path):
    assert read(tmp_path / "absent") == secrets()


def test_the_data_folder_tells_what_the_environment_does_not(tmp_path):
    (tmp_path / "secrets.json").write_text(json.dumps(FOLDER))
    assert read(tmp_path) == secrets(
        jwt_secret=Secret(FOLDER_SECRET),
        database_url=Secret("postgresql://postgres:p%40ss%2Fword@127.0.0.1:5555/postgres"),
        api_key=Secret("sb_publishable_folder"),
        service_key=Secret("sb_secret_folder"),
    )


def test_the_environment_comes_first_and_keys_of_two_servers_are_never_mixed(tmp_path):
    (tmp_path / "secrets.json").write_text(json.dumps({**FOLDER, "port": None}))
    url = "postgresql://me@db.example.com/shop"
    found = read(tmp_path, HELIOGRAPH_JWT_SECRET=SECRET, DATABASE_URL=url)
    assert found == secrets(jwt_secret=Secret(SECRET), database_url=Secret(url))


@pytest.mark.parametrize("content", ["", "{}", '{"jwt_secret": 1}'])
def test_a_damaged_folder_is_named_without_its_content(tmp_path, content):
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"secrets\.json is damaged$"):
        read(tmp_path)


def test_a_folder_that_can_not_be_read_is_named(tmp_path):
    (tmp_path / "secrets.json").mkdir()
    with pytest.raises(ConfigurationError, match="can not be read"):
        read(tmp_path)


def test_a_service_key_is_used_as_it_is():
    keys = service_keys(secrets(service_key=Secret("sb_secret_x")), FixedClock())
    assert isinstance(keys, StaticKey)
    assert (keys.api_key(), keys.token()) == ("sb_secret_x", None)


def test_without_a_service_key_one_is_minted():
    keys = service_keys(secrets(jwt_secret=Secret(SECRET)), FixedClock())
    assert claims_of(keys.token())["role"] == "service_role"
    assert keys.api_key() == keys.token()


def test_without_key_and_secret_the_variable_is_named():
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY: missing"):
        service_keys(secrets(), FixedClock())


def test_a_token_is_renewed_at_half_of_its_life():
    clock = FixedClock()
    keys = MintedToken(Secret(SECRET), {"role": "authenticated"}, clock)
    first = keys.token()
    assert claims_of(first) == {
        "role": "authenticated",
        "iat": int(clock.now_s),
        "exp": int(clock.now_s + limits.TAIL_TOKEN_LIFETIME_S),
    }
    clock.now_s += limits.TAIL_TOKEN_LIFETIME_S / 2 - 1
    assert keys.token() == first
    clock.now_s += 1
    assert keys.token() != first


def test_no_secret_is_printed_by_accident():
    keys = MintedToken(Secret(SECRET), {"role": "authenticated"}, FixedClock())
    assert SECRET not in repr(keys) + repr(secrets(jwt_secret=Secret(SECRET)))


@pytest.mark.asyncio
async def test_a_user_without_a_secret_can_not_be_anybody():
    with pytest.raises(ConfigurationError, match="HELIOGRAPH_JWT_SECRET: missing"):
        await user_keys(USER, secrets(), FixedClock())


@pytest.mark.asyncio
async def test_an_id_needs_no_database():
    known = secrets(jwt_secret=Secret(SECRET), api_key=Secret("sb_publishable_x"))
    keys = await user_keys(USER.upper(), known, FixedClock())
    claims = claims_of(keys.token())
    assert (claims["sub"], claims["role"], claims["aud"]) == (
        USER,
        "authenticated",
        "authenticated",
    )
    assert keys.api_key() == "sb_publishable_x"


@pytest.mark.asyncio
async def test_an_address_without_a_database_can_not_be_looked_up():
    with pytest.raises(ConfigurationError, match="DATABASE_URL: missing"):
        await user_keys("a@example.com", secrets(jwt_secret=Secret(SECRET)), FixedClock())


@pytest.mark.asyncio
async def test_the_role_stands_in_the_configured_claim_too():
    known = TailSecrets(Secret(SECRET), None, None, None, role_claim="db_role")
    claims = claims_of((await user_keys(USER, known, FixedClock())).token())
    assert (claims["role"], claims["db_role"]) == ("authenticated", "authenticated")


@pytest.mark.asyncio
async def test_a_minted_token_has_the_claims_that_the_server_requires(tmp_path):
    known = read(
        tmp_path,
        HELIOGRAPH_JWT_SECRET=SECRET,
        HELIOGRAPH_JWT_CLAIM_VALIDATORS='{"aud": "shop", "iss": "https://issuer.example"}',
    )
    for keys in (await user_keys(USER, known, FixedClock()), service_keys(known, FixedClock())):
        claims = claims_of(keys.token())
        assert (claims["aud"], claims["iss"]) == ("shop", "https://issuer.example")


@pytest.mark.asyncio
async def test_a_database_that_is_not_there_is_unavailable_and_its_password_is_not_repeated():
    url = Secret("postgresql://me:hidden-word@127.0.0.1:1/shop?connect_timeout=2")
    known = secrets(jwt_secret=Secret(SECRET), database_url=url)
    with pytest.raises(UnavailableError) as caught:
        await user_keys(USER, known, FixedClock())
    assert "hidden-word" not in str(caught.value)


@pytest.fixture
def users_url(postgres_url: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "create schema auth;"
            "create table auth.users (id uuid primary key, email varchar(255), role varchar(255),"
            " raw_app_meta_data jsonb, raw_user_meta_data jsonb, deleted_at timestamptz);"
            "insert into auth.users values"
            f" ('{USER}', 'Celia@shop.example.com', 'authenticated', '{{\"tier\": 1}}', null),"
            " (gen_random_uuid(), 'twice@example.com', null, null, null),"
            " (gen_random_uuid(), 'Twice@example.com', null, null, null);"
            "insert into auth.users values"
            " (gen_random_uuid(), 'gone@example.com', null, null, null, now())"
        )
    return postgres_url


@pytest.mark.postgres
@pytest.mark.asyncio
@pytest.mark.parametrize("person", ["celia@SHOP.example.com", USER])
async def test_a_user_is_found_by_address_or_id(users_url, person):
    known = secrets(jwt_secret=Secret(SECRET), database_url=Secret(users_url))
    claims = claims_of((await user_keys(person, known, FixedClock())).token())
    assert {name: claims[name] for name in ("sub", "email", "role", "app_metadata")} == {
        "sub": USER,
        "email": "Celia@shop.example.com",
        "role": "authenticated",
        "app_metadata": {"tier": 1},
    }


@pytest.mark.postgres
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("person", "text"),
    [
        ("nobody@example.com", "nobody with this"),
        ("gone@example.com", "nobody with this"),
        ("twice@example.com", "several users"),
        ("99999999-0000-4000-8000-000000000001", "nobody with this"),
        ("' or true --", "nobody with this"),
    ],
)
async def test_who_is_not_exactly_one_user_is_refused(users_url, person, text):
    known = secrets(jwt_secret=Secret(SECRET), database_url=Secret(users_url))
    with pytest.raises(UnknownUserError, match=text):
        await user_keys(person, known, FixedClock())


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_database_without_users_refuses(postgres_url):
    known = secrets(jwt_secret=Secret(SECRET), database_url=Secret(postgres_url))
    with pytest.raises(StorageError):
        await user_keys(USER, known, FixedClock())


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_table_of_users_of_another_shape_is_told_as_such(postgres_url):
    connection = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
    async with connection:
        await connection.execute(
            "create schema auth; create table auth.users (id uuid, email text)"
        )
    known = secrets(jwt_secret=Secret(SECRET), database_url=Secret(postgres_url))
    with pytest.raises(StorageError, match="the columns id, email, role"):
        await user_keys("a@example.com", known, FixedClock())


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_login_that_may_not_read_users_is_told_what_it_needs(users_url):
    with psycopg.connect(users_url, autocommit=True) as connection:
        # A role that no other test logs in as; roles belong to the whole cluster.
        connection.execute("drop role if exists reads_no_users; create role reads_no_users login")
    url = users_url.replace("//postgres@", "//reads_no_users@")
    known = secrets(jwt_secret=Secret(SECRET), database_url=Secret(url))
    with pytest.raises(StorageError, match="needs SELECT on it"):
        await user_keys(USER, known, FixedClock())
