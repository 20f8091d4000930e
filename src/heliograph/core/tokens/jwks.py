"""Read a JWK set (RFC 7517): which of its keys can verify tokens, and why others can not.

One key that is of no use does not spoil the set: issuers publish keys for encryption and of new
kinds beside those for signatures.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from heliograph.core.tokens.key_set import (
    EC_ALGORITHMS,
    OKP_ALGORITHMS,
    RSA_ALGORITHMS,
    SHARED_SECRET_ALGORITHMS,
    VerificationKey,
    secret_material,
)
from heliograph.errors import ConfigurationError
from heliograph.limits import JWKS_KEYS_MAX, RSA_KEY_BITS_MIN

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

#: Members of a JWK that make up its public half; private ones are dropped before it is read.
_PUBLIC_MEMBERS: Final = {
    "RSA": ("kty", "n", "e"),
    "EC": ("kty", "crv", "x", "y"),
    "OKP": ("kty", "crv", "x"),
}

_KEY_ID_CHARACTERS_MAX: Final = 255


class _UnusableKeyError(ValueError):
    """One key of a set that is left out; the others are used."""


@dataclass(frozen=True, slots=True)
class ReadKeys:
    """What was found in a JWKS.

    Attributes:
        keys: Usable keys, each with an id.
        left_out: Why others are not used, a sentence each.
    """

    keys: tuple[VerificationKey, ...]
    left_out: tuple[str, ...]


def read_jwks(document: str | bytes, *, may_hold_secrets: bool) -> ReadKeys:
    """Read a JWK set: ``{"keys": [...]}``.

    Args:
        document: JSON.
        may_hold_secrets: Whether ``oct`` keys are used. Never for a document that was fetched: a
            secret that can be fetched is none.

    Raises:
        ConfigurationError: If it is no JWK set, or has more than `JWKS_KEYS_MAX` keys.
    """
    try:
        decoded: object = json.loads(document)
    except (ValueError, RecursionError) as error:
        message = "the JWKS is not JSON"
        raise ConfigurationError(message) from error
    members = cast("dict[str, object]", decoded) if isinstance(decoded, dict) else {}
    entries = members.get("keys")
    if not isinstance(entries, list):
        message = 'the JWKS must be an object with a list: {"keys": [...]}'
        raise ConfigurationError(message)
    if len(cast("list[object]", entries)) > JWKS_KEYS_MAX:
        message = f"the JWKS has more than {JWKS_KEYS_MAX} keys"
        raise ConfigurationError(message)
    keys: list[VerificationKey] = []
    left_out: list[str] = []
    for place, entry in enumerate(cast("list[object]", entries), start=1):
        try:
            keys.append(_key_of(entry, may_hold_secrets=may_hold_secrets))
        except _UnusableKeyError as error:
            left_out.append(f"key {place} of the JWKS is not used: {error}")
    return ReadKeys(tuple(keys), tuple(left_out))


def _key_of(entry: object, *, may_hold_secrets: bool) -> VerificationKey:
    if not isinstance(entry, dict):
        message = "it is no object"
        raise _UnusableKeyError(message)
    jwk = cast("dict[str, object]", entry)
    key_id, key_type = jwk.get("kid"), jwk.get("kty")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _KEY_ID_CHARACTERS_MAX:
        message = "it has no key id (kid), so no token can name it"
        raise _UnusableKeyError(message)
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or (
        isinstance(operations, list) and "verify" not in cast("list[object]", operations)
    ):
        message = "it is not for verifying signatures"
        raise _UnusableKeyError(message)
    algorithms, material = _read_material(jwk, key_type, may_hold_secrets=may_hold_secrets)
    declared = jwk.get("alg")
    if declared is not None:
        algorithms = {name: algorithms[name] for name in algorithms if name == declared}
    if not algorithms:
        message = "its algorithm (alg) does not go with its type"
        raise _UnusableKeyError(message)
    return VerificationKey(key_id, algorithms, material)


def _read_material(
    jwk: Mapping[str, object], key_type: object, *, may_hold_secrets: bool
) -> tuple[Mapping[str, Any], Any]:
    match key_type:
        case "oct":
            return SHARED_SECRET_ALGORITHMS, _read_secret(jwk, may_hold_secrets=may_hold_secrets)
        case "RSA":
            return RSA_ALGORITHMS, _read_rsa(jwk)
        case "EC":
            return _of_curve(EC_ALGORITHMS, jwk), _read_public(ECAlgorithm, jwk)
        case "OKP":
            return _of_curve(OKP_ALGORITHMS, jwk), _read_public(OKPAlgorithm, jwk)
        case _:
            message = "its type (kty) is not one of oct, RSA, EC, OKP"
            raise _UnusableKeyError(message)


def _of_curve(
    algorithms: Mapping[str, Mapping[str, Any]], jwk: Mapping[str, object]
) -> Mapping[str, Any]:
    curve = jwk.get("crv")
    if not isinstance(curve, str) or curve not in algorithms:
        message = f"its curve (crv) is not one of {', '.join(algorithms)}"
        raise _UnusableKeyError(message)
    return algorithms[curve]


def _read_public(
    algorithm: type[ECAlgorithm | OKPAlgorithm | RSAAlgorithm], jwk: Mapping[str, object]
) -> object:
    names = _PUBLIC_MEMBERS[str(jwk["kty"])]
    try:
        return algorithm.from_jwk({name: jwk[name] for name in names if name in jwk})
    except (InvalidKeyError, ValueError, TypeError, AttributeError) as error:
        message = "its numbers are not a public key of its type"
        raise _UnusableKeyError(message) from error


def _read_rsa(jwk: Mapping[str, object]) -> "RSAPublicKey":
    key = cast("RSAPublicKey", _read_public(RSAAlgorithm, jwk))
    if key.key_size < RSA_KEY_BITS_MIN:
        message = f"an RSA key needs {RSA_KEY_BITS_MIN} bits"
        raise _UnusableKeyError(message)
    return key


def _read_secret(jwk: Mapping[str, object], *, may_hold_secrets: bool) -> bytes:
    if not may_hold_secrets:
        message = "it is a secret, and a secret that can be fetched is none"
        raise _UnusableKeyError(message)
    encoded = jwk.get("k")
    try:
        if isinstance(encoded, str):
            return secret_material(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, InvalidKeyError):
        pass
    message = "its value (k) is no secret in base64url"
    raise _UnusableKeyError(message)
