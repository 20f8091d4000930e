"""`heliograph migrate`, `publish` and `keys` as they are called: output and exit codes."""

import json
import os
import sys
from dataclasses import dataclass

import jwt
import psycopg
import pytest
import typer

from heliograph.cli import keys, migrate, publish
from heliograph.cli.main import run
from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.minting import mint_legacy_key
from heliograph.core.tokens.token_verifier import TokenVerifier

pytestmark = pytest.mark.postgres

SECRET = "a secret of at least thirty-two bytes, truly"


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def heliograph(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder with this environment only; return how it ended."""

    def run_command(*arguments, **environ):
        app = typer.Typer(pretty_exceptions_enable=False)
        for module in (migrate, publish, keys):
            module.register(app)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name in list(os.environ):
                if name.startswith(("HELIOGRAPH_", "SUPABASE_", "DATABASE_", "PG")):
                    patch.delenv(name)
            for name, value in {"COLUMNS": "200", **environ}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["heliograph", *arguments])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                run(app)
                raise SystemExit(0)
        output = capsys.readouterr()
        return Done(ended.value.code or 0, output.out, output.err)

    return run_command


def test_a_database_is_looked_at_migrated_and_left_alone(postgres_url, heliograph):
    dry = heliograph("migrate", "--dry-run", DATABASE_URL=postgres_url)
    assert dry.returncode == 0, dry.stderr
    assert "would run 0001_private_schema: private schema" in dry.stdout
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select to_regnamespace('heliograph')").fetchone() == (None,)
    first = heliograph("migrate", DATABASE_URL=postgres_url)
    assert first.returncode == 0, first.stderr
    assert "ran 0001_private_schema" in first.stdout
    second = heliograph("migrate", DATABASE_URL=postgres_url)
    assert "nothing to do" in second.stdout
    status = heliograph("migrate", "--status", DATABASE_URL=postgres_url)
    assert "mode fresh" in status.stdout
    assert "pending" not in status.stdout
    assert heliograph("migrate", "--dry-run", DATABASE_URL=postgres_url).stdout == "nothing to do\n"


def test_sql_is_printed_without_a_database_and_runs(postgres_url, heliograph):
    printed = heliograph("migrate", "--print-sql")
    assert printed.returncode == 0, printed.stderr
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(printed.stdout.encode())
    assert "nothing to do" in heliograph("migrate", DATABASE_URL=postgres_url).stdout
    attached = heliograph("migrate", "--print-sql", "--attach", "always").stdout
    assert "create publication" in attached
    assert "create role" not in attached


def test_essential_things_missing_end_with_1_and_what_to_run(rolefree_url, heliograph, other_user):
    with psycopg.connect(rolefree_url, autocommit=True) as connection:
        connection.execute("create role stranger login")
    url = other_user(rolefree_url, "stranger")
    done = heliograph("migrate", DATABASE_URL=url)
    assert done.returncode == 1
    assert "GRANT CREATE ON DATABASE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "text"),
    [
        (("migrate",), {}, "DATABASE_URL: missing"),
        (("publish", "t"), {}, "DATABASE_URL: missing"),
        (("keys",), {}, "HELIOGRAPH_JWT_SECRET: missing"),
        (("keys", "--role", "anon"), {}, "HELIOGRAPH_JWT_SECRET: missing"),
        (("migrate", "--status", "--dry-run"), {}, "exclude each other"),
        (("migrate", "--attach", "perhaps"), {}, "perhaps"),
        (("keys", "--claims", "{}"), {}, "--claims needs"),
        (("keys", "--role", "a", "--claims", "[]"), {}, "must be a JSON object"),
        (("keys", "--role", "a", "--ttl", "0"), {}, "--ttl"),
        (("keys", "--role", "postgres"), {"HELIOGRAPH_JWT_SECRET": SECRET}, "HELIOGRAPH_ROLES"),
        (
            ("keys", "--role", "anon", "--claims", '{"exp": 1}'),
            {"HELIOGRAPH_JWT_SECRET": SECRET},
            "--ttl",
        ),
        (("publish", "t", "--identity", "some"), {}, "some"),
    ],
)
def test_wrong_usage_ends_with_2(heliograph, arguments, environ, text):
    done = heliograph(*arguments, **environ)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_publish_says_what_it_did_and_what_clients_miss(postgres_url, heliograph):
    heliograph("migrate", DATABASE_URL=postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            'create table "Odd; name" (id int primary key); create table keyless (a int)'
        )
    first = heliograph("publish", "Odd; name", DATABASE_URL=postgres_url)
    assert first.returncode == 0, first.stderr
    assert "is now in publication supabase_realtime, replica identity FULL" in first.stdout
    assert "row level security is off" in first.stderr
    second = heliograph("publish", '"Odd; name"', DATABASE_URL=postgres_url)
    assert second.returncode == 0
    assert "was already in" in second.stdout
    refused = heliograph("publish", "keyless", DATABASE_URL=postgres_url)
    assert refused.returncode == 2
    assert "it has no primary key" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_keys_are_printed_from_the_environment_or_follow_from_the_secret(heliograph):
    environ = {"HELIOGRAPH_JWT_SECRET": SECRET, "HELIOGRAPH_SECRET_KEY": "sb_secret_" + "x" * 22}
    known = json.loads(heliograph("keys", "--json", **environ).stdout)
    assert known == {
        "anon_key": mint_legacy_key(SECRET, "anon"),
        "service_role_key": mint_legacy_key(SECRET, "service_role"),
        "secret_key": "sb_secret_" + "x" * 22,
        "jwt_secret": SECRET,
    }
    assert f"anon_key          {known['anon_key']}\n" in heliograph("keys", **environ).stdout


def test_keys_are_printed_from_a_data_folder(heliograph, tmp_path):
    folder = tmp_path / "heliograph-data"
    folder.mkdir()
    (folder / "secrets.json").write_text(
        json.dumps(
            {
                "postgres_password": "p",
                "jwt_secret": SECRET,
                "publishable_key": "sb_publishable_folder",
                "secret_key": "sb_secret_folder",
            }
        )
    )
    known = json.loads(heliograph("keys", "--json").stdout)
    assert known["publishable_key"] == "sb_publishable_folder"
    assert known["anon_key"] == mint_legacy_key(SECRET, "anon")
    (folder / "secrets.json").write_text("{")
    damaged = heliograph("keys")
    assert damaged.returncode == 2
    assert "is damaged" in damaged.stderr


def test_tokens_are_minted_for_roles_and_for_users(postgres_url, heliograph):
    heliograph("migrate", DATABASE_URL=postgres_url)
    user_id = "12000000-0000-4000-8000-000000001003"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "insert into auth.users (id, email, role, raw_app_meta_data)"
            " values (%s, 'ana@shop.example', 'authenticated', '{\"branch\": 7}')",
            (user_id,),
        )
    environ = {"HELIOGRAPH_JWT_SECRET": SECRET, "DATABASE_URL": postgres_url}

    def claims_of(*arguments):
        done = heliograph("keys", *arguments, **environ)
        assert done.returncode == 0, done.stderr
        text = done.stdout.strip()
        assert "\n" not in text
        options = {"verify_aud": False}
        return jwt.decode(text, SECRET, algorithms=["HS256"], options=options)

    anon = claims_of("--role", "anon", "--ttl", "60", "--claims", '{"org": 5}')
    assert (anon["role"], anon["org"], anon["exp"] - anon["iat"]) == ("anon", 5, 60)
    for person in ("Ana@Shop.example", user_id):
        ana = claims_of("--user", person)
        assert (ana["sub"], ana["role"]) == (user_id, "authenticated")
        assert ana["app_metadata"] == {"branch": 7}
    other = claims_of("--user", user_id, "--role", "service_role")
    assert (other["sub"], other["role"]) == (user_id, "service_role")
    unknown = heliograph("keys", "--user", "nobody@shop.example", **environ)
    assert unknown.returncode == 1
    assert unknown.stdout == ""
    token = json.loads(heliograph("keys", "--role", "anon", "--json", **environ).stdout)
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    claims = jwt.decode(token["access_token"], options={"verify_signature": False})
    assert verifier.verify(token["access_token"], now_s=claims["iat"]).role == "anon"
