"""Every reason for which a token is refused, said in terms of what to do."""

import base64
import json
from types import MappingProxyType

import jwt
import pytest

from fixtures.doctor import assert_on_its_page
from heliograph.cli.diagnosis.check import CheckStatus
from heliograph.cli.diagnosis.secrets_of import Secrets
from heliograph.cli.diagnosis.tokens import (
    TokenContext,
    judge_good_token,
    judge_refused_token,
    judge_unknown_token,
)
from heliograph.cli.doctor import as_document
from heliograph.config import Settings
from heliograph.errors import TokenError
from heliograph.ports.identity import Identity
from heliograph.server.authentication import make_keys

SECRET = "a secret that is long enough for HS256"
NOW_S = 1_800_000_000.0


class Clock:
    def monotonic_s(self):
        return 0.0

    def unix_s(self):
        return NOW_S


def settings(**more):
    return Settings.from_environ({"HELIOGRAPH_JWT_SECRET": SECRET, **more})


def token(*, secret=SECRET, headers=None, algorithm="HS256", **claims):
    content = {"role": "authenticated", "exp": NOW_S + 60, **claims}
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, secret, algorithm=algorithm, headers=headers)


def part(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def refused(text, known=None, **more):
    known = known or settings(**more)
    with pytest.raises(TokenError) as raised:
        make_keys(known, Clock()).verify(text)
    return judge_refused_token(text, raised.value, TokenContext(known, NOW_S, None))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 1 pieces"),
        ("abc", "has 1 pieces"),
        ("a.b.c.d.e", "encrypted"),
        ("Bearer " + token(), "Bearer"),
        (f'"{token()}"', "quotation marks"),
        ("x" * 9_000, "9000 characters"),
        (f"!!.{part({})}.x", "first piece"),
        (f"{part('no json')}.{part({})}.x", "first piece"),
        (f"{part({'alg': 'HS256'})}.{part([1])}.x", "second piece"),
        (f"{part({'typ': 'JWT'})}.{part({})}.xx", "no `alg`"),
        (token(headers={"kid": "k9"}, secret="x" * 40), "another secret"),
        (token(secret="y" * 40), "another secret"),
        (f"{part({'alg': 'none'})}.{part({})}.xx", "not signed (alg none)"),
        (f"{part({'alg': 'ES256', 'kid': 'k9'})}.{part({})}.xx", "alg ES256, kid k9"),
        (f"{part({'alg': 'RS256'})}.{part({})}.xx", "kid none"),
        (f"{part({'alg': 'RS256', 'kid': chr(27) + '[2J'})}.{part({})}.xx", "can not be shown"),
        (token(role=None), "no role: the claim `role`"),
        (token(role=""), "no role"),
        (token(exp=None), "no end: the claim `exp`"),
        (token(exp=NOW_S - 90), "has expired 90 s ago"),
        (token(nbf=NOW_S + 30), "not valid before 30 s from now"),
        (token(role="owner"), "none of HELIOGRAPH_ROLES"),
        ("sb_publishable_of-another-server", "sb_ key"),
    ],
)
def test_each_refusal_has_its_reason_and_what_to_do(text, problem):
    check = refused(text)
    assert check.status is CheckStatus.FAIL
    assert problem in check.detail
    assert "clients are told" in check.detail
    assert check.remedy
    assert len(text) < 20 or text not in check.detail + check.remedy


def test_an_end_that_is_no_number_is_told():
    forged = jwt.api_jws.encode(
        json.dumps({"role": "authenticated", "exp": "soon"}).encode(), SECRET, algorithm="HS256"
    )
    assert "`exp` is no number" in refused(forged).detail


def test_another_audience_and_a_missing_one_are_told_apart():
    wanted = {"HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"aud": "shop"}'}
    assert "`aud` is missing" in refused(token(), **wanted).detail
    other = refused(token(aud="blog"), **wanted)
    assert "`aud` is another one" in other.detail
    for check in as_document([other, refused(f"{part({'alg': 'none'})}.e30.xx")], Secrets(()))[
        "checks"
    ]:
        assert_on_its_page(check)


def test_the_remedy_names_the_setting_that_is_missing():
    only_jwks = Settings.from_environ({"HELIOGRAPH_JWKS_URL": "https://issuer.example/keys"})
    assert "set HELIOGRAPH_JWT_SECRET to the secret" in refused(token(), known=only_jwks).remedy
    nothing = Settings.from_environ({})
    check = refused(token(), known=nothing)
    assert "there are none" in check.detail
    assert "HELIOGRAPH_JWKS_URL" in check.remedy


def identity(role, expires_unix_s=NOW_S + 60):
    return Identity(
        role=role,
        claims_json="{}",
        claims=MappingProxyType({}),
        subject=None,
        expires_unix_s=expires_unix_s,
    )


@pytest.mark.parametrize(
    ("role", "roles", "status", "text"),
    [
        ("authenticated", None, "ok", "60 s left"),
        ("authenticated", {"authenticated"}, "ok", "role authenticated"),
        ("authenticated", {"anon"}, "fail", "no role authenticated"),
        ("service_role", {"service_role"}, "warn", "passes by every policy"),
    ],
)
def test_a_good_token_is_judged_by_its_role(role, roles, status, text):
    check = judge_good_token(identity(role), TokenContext(settings(), NOW_S, roles))
    assert check.status == status
    assert text in check.detail


def test_a_good_api_key_has_no_end():
    check = judge_good_token(identity("anon", None), TokenContext(settings(), NOW_S, None))
    assert check.detail == "it is a good API key for the role anon"


def test_an_issuer_that_is_away_is_told():
    assert "HELIOGRAPH_JWKS_URL" in judge_unknown_token("the keys can not be had").remedy
