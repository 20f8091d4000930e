"""Tokens and keys that we make are accepted by our own verifier."""

import jwt
import pytest

from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.minting import mint_api_key, mint_legacy_key, mint_token
from heliograph.core.tokens.token_verifier import TokenVerifier
from heliograph.errors import ConfigurationError, TokenError

SECRET = "a secret of at least thirty-two bytes, truly"
NOW = 1_800_000_000.0


def test_a_minted_token_is_good_for_its_time():
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    token = mint_token(SECRET, {"role": "anon", "exp": 1}, now_s=NOW, ttl_s=60)
    assert verifier.verify(token, now_s=NOW + 59).claims["iat"] == NOW
    with pytest.raises(TokenError, match="expired 1 seconds ago"):
        verifier.verify(token, now_s=NOW + 61)


def test_a_secret_gives_the_same_legacy_keys_for_ten_years():
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    key = mint_legacy_key(SECRET, "service_role")
    assert key == mint_legacy_key(SECRET, "service_role")
    assert verifier.verify(key, now_s=NOW).role == "service_role"
    claims = jwt.decode(key, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3652 * 86400


def test_a_short_secret_signs_nothing():
    with pytest.raises(ConfigurationError, match="shorter than 32 bytes"):
        mint_token("short", {}, now_s=NOW, ttl_s=1)


def test_an_api_key_is_its_prefix_and_randomness():
    assert mint_api_key("sb_secret_", bytes(16)) == "sb_secret_" + "A" * 22
    with pytest.raises(ConfigurationError, match="16 random bytes"):
        mint_api_key("sb_secret_", bytes(15))
