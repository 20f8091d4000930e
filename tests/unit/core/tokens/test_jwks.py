"""Reading a JWK set: usable keys are used, the others are named."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from heliograph.core.tokens.jwks import read_jwks
from heliograph.errors import ConfigurationError


def public(private, algorithm, **members):
    return {**algorithm.to_jwk(private.public_key(), as_dict=True), "kid": "k", **members}


RSA = public(rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm)
SMALL_RSA = public(
    rsa.generate_private_key(65537, 1024),
    jwt.algorithms.RSAAlgorithm,
)
EC = public(ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm)
OKP = public(ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm)
OCT = {"kty": "oct", "kid": "k", "k": "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMgb3IgbW9yZQ"}


def read(*keys, may_hold_secrets=True):
    return read_jwks(json.dumps({"keys": keys}), may_hold_secrets=may_hold_secrets)


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA, {"RS256", "RS384", "RS512"}),
        (EC, {"ES256"}),
        (OKP, {"EdDSA", "Ed25519"}),
        (OCT, {"HS256", "HS384", "HS512"}),
        ({**RSA, "alg": "RS512"}, {"RS512"}),
        ({**EC, "use": "sig", "key_ops": ["verify"]}, {"ES256"}),
        ({**EC, "d": "private part"}, {"ES256"}),
    ],
)
def test_a_key_may_be_used_with_the_algorithms_of_its_type(key, algorithms):
    found = read(key)
    assert found.left_out == ()
    (only,) = found.keys
    assert set(only.algorithms) == algorithms
    assert only.key_id == "k"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("text", "it is no object"),
        ({**EC, "kid": None}, "it has no key id"),
        ({**EC, "kid": ""}, "it has no key id"),
        ({**EC, "kid": "k" * 256}, "it has no key id"),
        ({**EC, "use": "enc"}, "not for verifying"),
        ({**EC, "key_ops": ["sign"]}, "not for verifying"),
        ({**EC, "alg": "RS256"}, "does not go with its type"),
        ({**EC, "alg": "none"}, "does not go with its type"),
        ({**EC, "crv": "secp256k1"}, "curve"),
        ({**EC, "crv": ["P-256"]}, "curve"),
        ({**EC, "x": "AAAA"}, "not a public key"),
        ({**EC, "x": 5}, "not a public key"),
        ({**OKP, "crv": "X25519"}, "curve"),
        ({**OKP, "x": "AAAA"}, "not a public key"),
        (SMALL_RSA, "an RSA key needs 2048 bits"),
        ({"kty": "RSA", "kid": "k"}, "not a public key"),
        ({"kty": "quantum", "kid": "k"}, "its type"),
        ({"kty": ["RSA"], "kid": "k"}, "its type"),
        ({**OCT, "k": None}, "no secret in base64url"),
        ({**OCT, "k": "A"}, "no secret in base64url"),
        ({**OCT, "k": ""}, "no secret in base64url"),
        ({**OCT, "k": "ä"}, "no secret in base64url"),
    ],
)
def test_a_useless_key_is_named_and_spoils_nothing(key, reason):
    found = read(key, RSA)
    assert len(found.keys) == 1
    (left_out,) = found.left_out
    assert left_out.startswith("key 1 of the JWKS is not used: ")
    assert reason in left_out


@pytest.mark.security
def test_a_secret_that_was_fetched_is_not_used():
    found = read(OCT, RSA, may_hold_secrets=False)
    assert len(found.keys) == 1
    assert "a secret that can be fetched is none" in found.left_out[0]
    assert OCT["k"] not in found.left_out[0]


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{}", '{"keys":{}}', "null", "x", '{"keys":null}', "[" * 100_000, b"\xff"],
)
def test_what_is_no_key_set_is_refused(document):
    with pytest.raises(ConfigurationError):
        read_jwks(document, may_hold_secrets=True)


def test_a_set_of_very_many_keys_is_refused():
    with pytest.raises(ConfigurationError, match="more than 100 keys"):
        read(*[{}] * 101)
