"""From the settings to keys."""

import base64
import json

import jwt
import pytest
from structlog.testing import capture_logs

from heliograph.config import Settings
from heliograph.config.secret import Secret
from heliograph.core.tokens.minting import mint_token
from heliograph.errors import TokenError
from heliograph.server.authentication import make_keys
from heliograph.server.system_clock import SystemClock


def test_keys_of_the_settings_that_can_not_be_used_are_named():
    value = "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXM"
    keys = [{"kty": "oct", "kid": "good", "k": value}, {"kty": "oct", "k": value}]
    settings = Settings(jwks=Secret(json.dumps({"keys": keys})))
    with capture_logs() as lines:
        make_keys(settings, SystemClock())
    assert lines == [
        {
            "event": "jwks_read",
            "log_level": "warning",
            "source": "HELIOGRAPH_JWKS",
            "usable_keys": 1,
            "left_out": [
                "key 2 of the JWKS is not used: it has no key id (kid), so no token can name it"
            ],
        }
    ]


def test_keys_of_the_settings_that_are_all_good_are_not_worth_a_line():
    settings = Settings(jwt_secret=Secret("a secret of at least thirty-two bytes, truly"))
    with capture_logs() as lines:
        make_keys(settings, SystemClock())
    assert lines == []


@pytest.mark.security
def test_tokens_of_the_same_issuer_for_another_audience_are_refused():
    secret = "a secret of at least thirty-two bytes, truly"
    environ = {
        "HELIOGRAPH_JWT_SECRET": secret,
        "HELIOGRAPH_JWT_CLAIM_VALIDATORS": '{"iss": "https://issuer.example", "aud": "shop"}',
    }
    keys = make_keys(Settings.from_environ(environ), SystemClock())

    def token(**claims):
        claims = {"role": "authenticated", "sub": "ada", "iss": "https://issuer.example", **claims}
        return mint_token(secret, claims, now_s=SystemClock().unix_s(), ttl_s=60)

    assert keys.verify(token(aud="shop")).subject == "ada"
    for other in ({}, {"aud": "bank"}, {"aud": ["shop"]}, {"aud": "shop", "iss": "x"}):
        with pytest.raises(TokenError, match=r"Claim `(aud|iss)`"):
            keys.verify(token(**other))


def test_a_given_key_that_the_server_refuses_is_worth_a_warning():
    # Signed by a key of the JWKS: the settings know only keys that our own secret signed.
    secret = "a secret of at least thirty-two bytes, truly"
    k = base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
    key = jwt.encode({"role": "anon", "exp": 1}, secret, "HS256", headers={"kid": "theirs"})
    key_set = json.dumps({"keys": [{"kty": "oct", "kid": "theirs", "k": k}]})
    settings = Settings.from_environ({"HELIOGRAPH_JWKS": key_set, "SUPABASE_ANON_KEY": key})
    with capture_logs() as lines:
        make_keys(settings, SystemClock())
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("api_key_refused", "warning")
    assert line["variable"] == "SUPABASE_ANON_KEY"
    assert line["problem"].startswith("Token has expired")
    assert key not in str(line)
