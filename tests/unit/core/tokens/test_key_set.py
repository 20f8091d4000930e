"""Which keys may be used for what."""

import pytest

from heliograph.core.tokens.key_set import KeySet, VerificationKey, secret_key
from heliograph.errors import ConfigurationError, TokenError

SECRET = "a secret of at least thirty-two bytes, truly"


@pytest.mark.security
@pytest.mark.parametrize(
    "secret",
    [
        "",
        "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMFkw\n-----END CERTIFICATE-----",
        "ssh-rsa AAAAB3NzaC1yc2E",
        '{"kty":"RSA","n":"AQAB","e":"AQAB"}',
    ],
)
def test_what_is_published_is_no_secret(secret):
    with pytest.raises(ConfigurationError):
        secret_key(secret)


def test_two_keys_of_one_id_are_told_apart_by_their_algorithms():
    first = VerificationKey("k", {"RS256": None}, None)
    second = VerificationKey("k", {"ES256": None}, None)
    keys = KeySet(keys=(first,)).with_keys((second,))
    assert keys.choose("RS256", "k") is first
    assert keys.choose("ES256", "k") is second
    assert keys.knows("k")
    assert not keys.knows("other")
    with pytest.raises(TokenError):
        keys.choose("ES384", "k")


def test_a_key_without_an_id_can_not_be_chosen():
    keys = KeySet(keys=(VerificationKey(None, {"RS256": None}, None),))
    with pytest.raises(TokenError):
        keys.choose("RS256", None)


def test_a_key_shows_nothing_of_its_material():
    assert SECRET not in repr(secret_key(SECRET))
