"""Settings: everything wrong is named at once, nothing secret is ever shown."""

import dataclasses
import hashlib
import hmac

import jwt
import pytest
from hypothesis import given, strategies as st

from heliograph import limits
from heliograph.config import (
    Bounds,
    DevelopmentSecrets,
    Secret,
    Settings,
    default_text,
    settings_of,
    unknown_variables,
)
from heliograph.errors import ConfigurationError

SECRET = "a-secret-of-this-test-with-more-than-32-bytes"
URL = "postgresql://owner:planted-word@db.example/shop"
SERVE = {
    "DATABASE_URL": URL,
    "HELIOGRAPH_JWT_SECRET": SECRET,
    "HELIOGRAPH_ALLOWED_ORIGINS": "https://app.example.com",
}
DEVELOPMENT = DevelopmentSecrets(
    database_url=Secret("postgresql://postgres:made@127.0.0.1:5/postgres"),
    jwt_secret=Secret("m" * 40),
    publishable_key=Secret("sb_publishable_made"),
    secret_key=Secret("sb_secret_made"),
)


def legacy_key(role: str, secret: str = SECRET, **claims: object) -> str:
    return jwt.encode({"role": role, "iss": "test", **claims}, secret, algorithm="HS256")


def message_of(load, environ) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(environ)
    return str(raised.value)


def test_an_empty_environment_has_defaults():
    settings = Settings.from_environ({})
    assert settings.host == "127.0.0.1"
    assert settings.port == 8000
    assert settings.roles == ("anon", "authenticated", "service_role")
    assert settings.allowed_origins is None
    assert settings.bounds.ring_bytes_max == limits.RING_BYTES_MAX


def test_every_setting_can_be_set():
    environ = {
        **SERVE,
        "HELIOGRAPH_REPLICATION_URL": "postgresql://r@db/shop",
        "HELIOGRAPH_JUDGE_URL": "postgresql://j@db/shop",
        "HELIOGRAPH_JWKS": '{"keys": [{"kty": "EC"}]}',
        "HELIOGRAPH_JWKS_URL": "https://issuer.example/jwks",
        "SUPABASE_URL": "https://api.example.com",
        "SUPABASE_ANON_KEY": legacy_key("anon", aud="shop"),
        "SUPABASE_SERVICE_ROLE_KEY": legacy_key("service_role", aud="shop"),
        "HELIOGRAPH_PUBLISHABLE_KEY": "sb_publishable_0123456789abcdef",
        "HELIOGRAPH_SECRET_KEY": "sb_secret_0123456789abcdef",
        "HELIOGRAPH_HOST": "0.0.0.0",
        "HELIOGRAPH_PORT": "9000",
        "HELIOGRAPH_ROLE_CLAIM": "db_role",
        "HELIOGRAPH_ROLES": "anon,staff",
        "HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"aud": "shop"}',
        "HELIOGRAPH_PUBLICATION": "mine",
        "HELIOGRAPH_SLOT": "mine",
        "HELIOGRAPH_STATE_DIR": "state",
        "HELIOGRAPH_ATTACH": "always",
        "HELIOGRAPH_READER": "polling",
        "HELIOGRAPH_ALLOW_WITHOUT_RLS": "orders",
        "HELIOGRAPH_EXTENSIONS": "pgcrypto",
        "HELIOGRAPH_DELETE_VISIBILITY": "strict",
        "HELIOGRAPH_LEAVE_EVENTS": "silent",
        "HELIOGRAPH_LOG_LEVEL": "debug",
        "HELIOGRAPH_LOG_FORMAT": "console",
        **{setting.variable: "4096" for setting in settings_of(Bounds).values()},
        "HELIOGRAPH_RING_BYTES_MAX": "2000000",
        "HELIOGRAPH_SLOT_WAL_BYTES_MAX": "1000000000",
        "HELIOGRAPH_WRITE_DEADLINE_S": "3.5",
        "HELIOGRAPH_JUDGEMENT_TIMEOUT_S": "0.5",
        "HELIOGRAPH_JUDGEMENT_CONNECTIONS_MAX": "2",
        "HELIOGRAPH_OUTBOUND_BYTES_LOW": "2048",
        "HELIOGRAPH_OUTBOUND_BYTES_MAX": "8192",
        "HELIOGRAPH_OUTBOUND_BYTES_TOTAL_MAX": "8192",
    }
    every = [*settings_of(Settings).values(), *settings_of(Bounds).values()]
    assert {setting.variable for setting in every} == set(environ)
    settings = Settings.for_serve(environ)
    defaults = Settings()
    for name in settings_of(Settings):
        assert getattr(settings, name) != getattr(defaults, name), name
    for name in settings_of(Bounds):
        assert getattr(settings.bounds, name) != getattr(defaults.bounds, name), name


def test_everything_wrong_is_named_in_one_error():
    shown = message_of(
        Settings.for_serve,
        {
            "HELIOGRAPH_PORT": "eighty",
            "HELIOGRAPH_JWT_SECRET": "short",
            "HELIOGRAPH_READER": "fast",
            "HELIOGRAPH_JWT_CLAIM_VALIDATORS": "aud=shop",
            "HELIOGRAPH_RING_BYTES_MAX": "-1",
            "SUPABASE_URL": "nowhere",
        },
    )
    for variable in (
        "DATABASE_URL",
        "HELIOGRAPH_ALLOWED_ORIGINS",
        "HELIOGRAPH_PORT",
        "HELIOGRAPH_JWT_SECRET",
        "HELIOGRAPH_READER",
        "HELIOGRAPH_JWT_CLAIM_VALIDATORS",
        "HELIOGRAPH_RING_BYTES_MAX",
        "SUPABASE_URL",
    ):
        assert shown.count(f"  {variable}:") == 1, variable
    assert shown.startswith("8 settings are")
    assert "found 'eighty'" in shown


def test_serve_without_anything_names_what_production_needs():
    shown = message_of(Settings.for_serve, {})
    for variable in (
        "DATABASE_URL",
        "HELIOGRAPH_JWT_SECRET",
        "HELIOGRAPH_JWKS",
        "HELIOGRAPH_JWKS_URL",
        "HELIOGRAPH_ALLOWED_ORIGINS",
        "HELIOGRAPH_JUDGE_URL",
        "SUPABASE_ANON_KEY",
    ):
        assert variable in shown


def test_an_empty_origin_list_is_said_and_a_missing_one_is_not():
    settings = Settings.for_serve({**SERVE, "HELIOGRAPH_ALLOWED_ORIGINS": ""})
    assert settings.allowed_origins == ()


def test_an_empty_variable_counts_as_absent():
    assert Settings.from_environ({"HELIOGRAPH_PORT": " "}).port == 8000


def test_serve_with_keys_of_another_issuer_needs_no_secret():
    environ = {
        "DATABASE_URL": URL,
        "HELIOGRAPH_JUDGE_URL": "postgresql://j@db/shop",
        "HELIOGRAPH_JWKS_URL": "https://issuer.example/jwks",
        "SUPABASE_ANON_KEY": legacy_key("anon"),
        "HELIOGRAPH_ALLOWED_ORIGINS": "",
    }
    settings = Settings.for_serve(environ)
    assert settings.judge_password is None
    assert settings.url_for_judging().reveal() == "postgresql://j@db/shop"


def test_serve_refuses_the_secret_of_public_examples():
    published = "super-secret-jwt-token-with-at-least-32-characters-long"
    shown = message_of(Settings.for_serve, {**SERVE, "HELIOGRAPH_JWT_SECRET": published})
    assert "HELIOGRAPH_JWT_SECRET" in shown
    assert published not in shown
    Settings.from_environ({"HELIOGRAPH_JWT_SECRET": published})


def test_supabase_names_are_accepted():
    settings = Settings.from_environ({"SUPABASE_JWT_SECRET": SECRET})
    assert settings.jwt_secret == Secret(SECRET)
    both = {"SUPABASE_JWT_SECRET": SECRET, "HELIOGRAPH_JWT_SECRET": SECRET}
    assert Settings.from_environ(both).jwt_secret == Secret(SECRET)


def test_two_names_with_different_values_are_refused():
    both = {"SUPABASE_JWT_SECRET": SECRET, "HELIOGRAPH_JWT_SECRET": SECRET + "x"}
    shown = message_of(Settings.from_environ, both)
    assert "HELIOGRAPH_JWT_SECRET and SUPABASE_JWT_SECRET" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (legacy_key("service_role"), "another role"),
        (legacy_key("anon", secret="of-somebody-else-with-more-than-32-bytes"), "not signed"),
        ("sb_publishable_0123456789abcdef", "HELIOGRAPH_PUBLISHABLE_KEY"),
        ("sb_secret_0123456789abcdef", "HELIOGRAPH_SECRET_KEY"),
        (legacy_key("anon", exp=1), "has expired"),
        (legacy_key("anon", exp=1.5), "has expired"),
        ("not.a.key", "expected a JWT"),
        ("W10.W10.W10", "expected a JWT"),
        (legacy_key("anon").rpartition(".")[0], "expected a JWT"),
        ("bm90IGpzb24." + legacy_key("anon").partition(".")[2], "not signed"),
    ],
)
def test_a_wrong_legacy_key_is_named_and_not_shown(key, told):
    shown = message_of(
        Settings.from_environ, {"HELIOGRAPH_JWT_SECRET": SECRET, "SUPABASE_ANON_KEY": key}
    )
    assert "SUPABASE_ANON_KEY" in shown
    assert told in shown
    assert key not in shown


def test_a_legacy_key_that_lasts_is_accepted():
    for exp in (9_999_999_999, "never", True):
        key = legacy_key("anon", exp=exp)
        environ = {"HELIOGRAPH_JWT_SECRET": SECRET, "SUPABASE_ANON_KEY": key}
        assert Settings.from_environ(environ).anon_key is not None


WANTS_SHOP = {
    "HELIOGRAPH_JWT_SECRET": SECRET,
    "HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"iss": "test", "aud": "shop"}',
}


@pytest.mark.parametrize("more", [{}, {"HELIOGRAPH_JWKS_URL": "https://issuer.example/keys"}])
def test_legacy_keys_that_the_claim_validators_would_refuse_are_named(more):
    environ = {
        **WANTS_SHOP,
        **more,
        "SUPABASE_ANON_KEY": legacy_key("anon"),
        "SUPABASE_SERVICE_ROLE_KEY": legacy_key("service_role", aud="bank"),
    }
    told = message_of(Settings.from_environ, environ)
    for variable in ("SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY"):
        assert f"{variable}: its claim `aud` is not what HELIOGRAPH_JWT_CLAIM_VALIDATORS" in told
    assert "`heliograph keys`" in told
    assert Settings.from_environ(
        {**WANTS_SHOP, **more, "SUPABASE_ANON_KEY": legacy_key("anon", aud="shop")}
    ).anon_key


def test_an_expired_legacy_key_that_is_known_by_its_text_is_accepted():
    theirs = legacy_key("anon", secret="of-the-project-with-more-than-32-bytes", exp=1)
    for more in ({}, {"HELIOGRAPH_JWT_SECRET": SECRET}):
        environ = {"HELIOGRAPH_JWKS_URL": "https://issuer.example/keys", **more}
        assert Settings.from_environ({**environ, "SUPABASE_ANON_KEY": theirs}).anon_key


def test_a_legacy_key_that_is_known_by_its_text_needs_no_claims():
    environ = {
        "HELIOGRAPH_JWKS_URL": "https://issuer.example/keys",
        "HELIOGRAPH_JWT_CLAIM_VALIDATORS": WANTS_SHOP["HELIOGRAPH_JWT_CLAIM_VALIDATORS"],
        "SUPABASE_ANON_KEY": legacy_key("anon"),
    }
    assert Settings.from_environ(environ).anon_key
    theirs = legacy_key("anon", secret="of-the-project-with-more-than-32-bytes")
    both = {**environ, "HELIOGRAPH_JWT_SECRET": SECRET, "SUPABASE_ANON_KEY": theirs}
    assert Settings.from_environ(both).anon_key


@pytest.mark.parametrize("claim", ["role", "app_metadata.role", "exp", "iat"])
def test_claims_that_no_two_tokens_share_can_not_be_required(claim):
    told = message_of(
        Settings.from_environ,
        {
            "HELIOGRAPH_JWT_CLAIM_VALIDATORS": f'{{"aud": "shop", "{claim}": "anon"}}',
            "HELIOGRAPH_ROLE_CLAIM": "app_metadata.role",
        },
    )
    assert f"HELIOGRAPH_JWT_CLAIM_VALIDATORS: `{claim}` differs" in told
    assert "HELIOGRAPH_ROLES" in told


def test_outbound_bounds_that_contradict_each_other_are_named():
    shown = message_of(Settings.from_environ, {"HELIOGRAPH_OUTBOUND_BYTES_LOW": "999999999"})
    assert "HELIOGRAPH_OUTBOUND_BYTES_LOW" in shown
    too_little = {"HELIOGRAPH_OUTBOUND_BYTES_TOTAL_MAX": "8388607"}
    assert "at least HELIOGRAPH_OUTBOUND_BYTES_MAX" in message_of(Settings.from_environ, too_little)


def test_a_limit_of_the_slot_that_would_be_reached_all_the_time_is_refused():
    variable = "HELIOGRAPH_SLOT_WAL_BYTES_MAX"
    assert Settings.from_environ({variable: "0"}).bounds.slot_wal_bytes_max == 0
    least = str(limits.SLOT_WAL_BYTES_MIN)
    assert Settings.from_environ({variable: least}).bounds.slot_wal_bytes_max == int(least)
    shown = message_of(Settings.from_environ, {variable: "4096"})
    assert f"{variable}: expected 0, or at least {least}" in shown


@given(
    st.sampled_from(
        [setting.variable for setting in settings_of(Settings).values() if setting.is_secret]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
)
def test_no_error_and_no_repr_shows_a_secret(variable, text):
    value = f"planted-{text}"
    try:
        shown = repr(Settings.for_serve({**SERVE, variable: value}))
    except ConfigurationError as error:
        shown = str(error)
    assert value not in shown


@given(
    st.sampled_from(["HELIOGRAPH_READER", "SUPABASE_URL", "HELIOGRAPH_LOG_LEVEL"]),
    st.sampled_from([SECRET, URL, legacy_key("service_role"), "sb_secret_0123456789abcdef"]),
)
def test_a_secret_in_the_wrong_variable_is_not_shown(variable, value):
    shown = message_of(Settings.from_environ, {variable: value})
    assert value not in shown
    assert "planted-word" not in shown


def test_repr_of_full_settings_holds_no_secret():
    settings = Settings.for_serve({**SERVE, "SUPABASE_ANON_KEY": legacy_key("anon")})
    shown = repr(settings) + repr(dataclasses.asdict(settings))
    for secret in (SECRET, "planted-word", legacy_key("anon")):
        assert secret not in shown


def test_dev_fills_what_is_missing_and_keeps_what_is_set():
    settings = Settings.for_dev({}, DEVELOPMENT)
    assert settings.url_for_administration() == DEVELOPMENT.database_url
    assert settings.jwt_secret == DEVELOPMENT.jwt_secret
    assert settings.publishable_key == DEVELOPMENT.publishable_key
    assert settings.secret_key == DEVELOPMENT.secret_key
    assert settings.log_format == "console"
    set_by_user = Settings.for_dev({**SERVE, "HELIOGRAPH_LOG_FORMAT": "json"}, DEVELOPMENT)
    assert set_by_user.url_for_administration() == Secret(URL)
    assert set_by_user.jwt_secret == Secret(SECRET)
    assert set_by_user.log_format == "json"


def test_the_judge_login_is_derived_from_database_url_and_secret():
    settings = Settings.for_serve(SERVE)
    password = hmac.new(SECRET.encode(), b"heliograph judge login", hashlib.sha256).hexdigest()
    assert settings.judge_password == Secret(password)
    expected = f"postgresql://heliograph_judge:{password}@db.example/shop"
    assert settings.url_for_judging().reveal() == expected


def test_urls_that_can_not_be_told_are_errors():
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        Settings().url_for_replication()
    with pytest.raises(ConfigurationError, match="HELIOGRAPH_JUDGE_URL"):
        Settings(database_url=Secret(URL)).url_for_judging()


def test_replication_goes_to_its_own_url_if_there_is_one():
    direct = {**SERVE, "HELIOGRAPH_REPLICATION_URL": "postgresql://r@direct/shop"}
    assert Settings.for_serve(direct).url_for_replication().reveal().endswith("direct/shop")
    assert Settings.for_serve(SERVE).url_for_replication() == Secret(URL)


def test_the_publication_depends_on_the_mode_unless_it_is_set():
    assert Settings().publication_name(is_attached=False) == "supabase_realtime"
    assert Settings().publication_name(is_attached=True) == "heliograph"
    assert Settings(publication="mine").publication_name(is_attached=True) == "mine"


def test_tables_without_rls_are_named_with_their_schema():
    some = Settings.from_environ({"HELIOGRAPH_ALLOW_WITHOUT_RLS": "orders, sales.lenses"})
    assert some.allow_without_rls == ("public.orders", "sales.lenses")
    assert Settings().allow_without_rls == ()


def test_misspelt_variables_are_found():
    environ = {"HELIOGRAPH_PROT": "1", "HELIOGRAPH_PORT": "1", "HOME": "/"}
    assert unknown_variables(environ, [Settings, Bounds]) == ["HELIOGRAPH_PROT"]


def test_every_bound_is_a_constant_of_limits():
    for name in settings_of(Bounds):
        assert getattr(Bounds(), name) == getattr(limits, name.upper())
        assert settings_of(Bounds)[name].variable == f"HELIOGRAPH_{name.upper()}"


def test_the_reference_shows_defaults():
    assert default_text(Settings, "roles") == "anon,authenticated,service_role"
    assert default_text(Settings, "allow_without_rls") == "none"
    assert default_text(Settings, "jwks") == "none"
    assert default_text(Settings, "port") == "8000"
    assert default_text(Bounds, "write_deadline_s") == "10"
    assert "embedded" in default_text(Settings, "database_url")
