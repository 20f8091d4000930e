"""Each kind of value: what is accepted, in which form it is kept, and what is refused."""

import pytest
from hypothesis import given, strategies as st

from heliograph.config.legacy_key import legacy_key_parser
from heliograph.config.postgres_url import parse_postgres_url, url_with_login
from heliograph.config.secret import Secret
from heliograph.config.values import (
    choice_parser,
    integer_parser,
    is_loopback,
    parse_claims,
    parse_extensions,
    parse_hmac_secret,
    parse_host,
    parse_key_set,
    parse_key_set_url,
    parse_name,
    parse_names,
    parse_origins,
    parse_public_url,
    parse_slot_name,
    parse_table_names,
    prefixed_key_parser,
    seconds_parser,
)

PARSERS = [
    choice_parser("a", "b"),
    integer_parser(1, 10),
    legacy_key_parser("anon"),
    parse_claims,
    parse_extensions,
    parse_hmac_secret,
    parse_host,
    parse_key_set,
    parse_key_set_url,
    parse_name,
    parse_names,
    parse_origins,
    parse_postgres_url,
    parse_public_url,
    parse_slot_name,
    parse_table_names,
    prefixed_key_parser("sb_secret_"),
    seconds_parser(0.5, 9),
]


@given(st.sampled_from(PARSERS), st.text(max_size=80))
def test_any_text_is_accepted_or_refused_with_a_value_error(parse, text):
    try:
        refusal = ""
        assert parse(text) is not None
    except ValueError as error:
        refusal = str(error)
    assert not refusal or "expected" in refusal or "%40" in refusal or "newer key" in refusal


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (integer_parser(1, 10), "10", 10),
        (seconds_parser(0.5, 9), "2.5", 2.5),
        (choice_parser("auto", "never"), "never", "never"),
        (parse_public_url, "https://db.example.com/", "https://db.example.com"),
        (parse_public_url, "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        (parse_key_set_url, "https://a.example/jwks.json", "https://a.example/jwks.json"),
        (parse_key_set_url, "http://[::1]:9/keys", "http://[::1]:9/keys"),
        (parse_origins, "", ()),
        (
            parse_origins,
            "HTTPS://App.Example.com:443, http://localhost:3000/,http://localhost:3000",
            ("https://app.example.com", "http://localhost:3000"),
        ),
        (parse_claims, '{"aud": "shop", "n": 1}', {"aud": "shop", "n": 1}),
        (parse_names, "anon, authenticated,anon", ("anon", "authenticated")),
        (parse_slot_name, "helio_1", "helio_1"),
        (parse_table_names, "orders,sales.lenses", ("public.orders", "sales.lenses")),
        (parse_table_names, "*", ("*",)),
        (parse_host, "0.0.0.0", "0.0.0.0"),
        (parse_host, "::1", "::1"),
    ],
)
def test_a_good_value_is_kept_in_its_usual_form(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (integer_parser(1, 10), "0"),
        (integer_parser(1, 10), "11"),
        (integer_parser(1, 10), "1e1"),
        (integer_parser(1, 10), "\u0661"),  # an Arabic digit one
        (seconds_parser(0.5, 9), "nan"),
        (seconds_parser(0.5, 9), "0.4"),
        (choice_parser("auto", "never"), "Never"),
        (parse_postgres_url, "mysql://localhost/shop"),
        (parse_postgres_url, "host=localhost dbname=shop"),
        (parse_postgres_url, "postgresql://"),
        (parse_postgres_url, "postgresql://owner@db.example.com"),
        (parse_postgres_url, "postgresql://owner@db.example.com/?sslmode=require"),
        (parse_postgres_url, "postgresql://user:p@ss@localhost/shop"),
        (parse_postgres_url, "postgresql://localhost:port/shop"),
        (parse_postgres_url, "postgresql://[::1/shop"),
        (parse_public_url, "https://user:word@example.com"),
        (parse_public_url, "https://example.com?x=1"),
        (parse_public_url, "ftp://example.com"),
        (parse_public_url, "https://exa mple.com"),
        (parse_key_set_url, "http://a.example/jwks.json"),
        (parse_key_set_url, "https:///jwks.json"),
        (parse_key_set, "{}"),
        (parse_key_set, '{"keys": []}'),
        (parse_key_set, '{"keys": [{"kid": "1"}]}'),
        (parse_key_set, "["),
        (parse_hmac_secret, "x" * 31),
        (prefixed_key_parser("sb_secret_"), "sb_publishable_0123456789abcdef"),
        (prefixed_key_parser("sb_secret_"), "sb_secret_short"),
        (parse_origins, "*"),
        (parse_origins, "null"),
        (parse_origins, "https://example.com/app"),
        (parse_origins, "https://example.com:0"),
        (parse_origins, "https://example.com:70000"),
        (parse_origins, "example.com"),
        (parse_name, ""),
        (parse_name, "a\0b"),
        (parse_name, "é" * 32),
        (parse_names, " , "),
        (parse_claims, "aud=shop"),
        (parse_claims, '["aud"]'),
        (parse_claims, "{}"),
        (parse_claims, '{"aud": "a", "aud": "b"}'),
        (parse_slot_name, "Helio"),
        (parse_table_names, "*,orders"),
        (parse_table_names, ".orders"),
        (parse_table_names, "shop.public.orders"),
        (parse_table_names, 'orders,"Lenses'),
        (parse_host, "local host"),
    ],
)
def test_a_bad_value_is_refused(parse, text):
    with pytest.raises(ValueError, match=r"expected|%40"):
        parse(text)


def test_secrets_come_back_wrapped():
    assert parse_hmac_secret("x" * 32) == Secret("x" * 32)
    assert parse_key_set('{"keys": [{"kty": "EC"}]}').reveal() == '{"keys": [{"kty": "EC"}]}'
    key = "sb_publishable_0123456789abcdef"
    assert prefixed_key_parser("sb_publishable_")(key) == Secret(key)
    url = "postgresql://a:b@one:5432,two:5433/shop"
    assert parse_postgres_url(url) == Secret(url)


def test_only_addresses_of_this_machine_are_loopback():
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("10.0.0.1", "localhost.example.com", ""))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://owner:old@db.example:5432/shop?sslmode=require",
            "postgresql://judge:n%40w@db.example:5432/shop?sslmode=require",
        ),
        ("postgresql://db.example/shop", "postgresql://judge:n%40w@db.example/shop"),
        (
            "postgresql:///shop?user=owner&password=old&host=/run/pg",
            "postgresql://judge:n%40w@/shop?host=%2Frun%2Fpg",
        ),
    ],
)
def test_another_login_keeps_host_database_and_options(url, expected):
    assert url_with_login(Secret(url), "judge", Secret("n@w")).reveal() == expected


def test_extensions_are_names_as_create_extension_takes_them():
    assert parse_extensions("pgcrypto, uuid-ossp,pgcrypto") == ("pgcrypto", "uuid-ossp")
    for wrong in ("", "../etc/passwd", "a--b", "-a", "pg crypto"):
        with pytest.raises(ValueError, match="expected"):
            parse_extensions(wrong)
