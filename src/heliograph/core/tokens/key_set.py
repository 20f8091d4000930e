"""The keys that verify tokens; the key decides the algorithm, never the token.

Each key knows the algorithms that it may be used with (S2): RSA with RS*, EC with the ES* of its
curve, OKP with EdDSA or its curve's name, oct and the shared secret with HS*. So a public key can
not become an HMAC secret, and ``none`` is no algorithm of any key.
Sources: RFC 7515, 7517, 7518 §3.1 and §6, 8037, 9864; realtime-protocol §1.3; auth-api §5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from heliograph.core.tokens.refusals import no_signer
from heliograph.errors import ConfigurationError

SHARED_SECRET_ALGORITHMS: Final[Mapping[str, HMACAlgorithm]] = {
    "HS256": HMACAlgorithm(HMACAlgorithm.SHA256),
    "HS384": HMACAlgorithm(HMACAlgorithm.SHA384),
    "HS512": HMACAlgorithm(HMACAlgorithm.SHA512),
}

RSA_ALGORITHMS: Final[Mapping[str, RSAAlgorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
}

EC_ALGORITHMS: Final[Mapping[str, Mapping[str, ECAlgorithm]]] = {
    "P-256": {"ES256": ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)},
    "P-384": {"ES384": ECAlgorithm(ECAlgorithm.SHA384, SECP384R1)},
    "P-521": {"ES512": ECAlgorithm(ECAlgorithm.SHA512, SECP521R1)},
}

OKP_ALGORITHMS: Final[Mapping[str, Mapping[str, OKPAlgorithm]]] = {
    "Ed25519": {"EdDSA": OKPAlgorithm(), "Ed25519": OKPAlgorithm()},
    "Ed448": {"EdDSA": OKPAlgorithm(), "Ed448": OKPAlgorithm()},
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One key.

    Attributes:
        key_id: ``kid``; None for the shared secret.
        algorithms: What it may be used with, by the token's ``alg``.
    """

    key_id: str | None
    algorithms: Mapping[str, Any]
    _material: Any = field(repr=False)

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Tell whether this key made the signature; ``algorithm`` must be one of its own."""
        return bool(self.algorithms[algorithm].verify(message, self._material, signature))


class KeySet:
    """The shared secret and the keys of a JWKS; immutable."""

    def __init__(
        self, *, secret: VerificationKey | None = None, keys: Iterable[VerificationKey] = ()
    ) -> None:
        """Keep the keys; see `secret_key` and `jwks.read_jwks`."""
        self._secret = secret
        self._keys: dict[str, list[VerificationKey]] = {}
        for key in keys:
            if key.key_id is not None:
                self._keys.setdefault(key.key_id, []).append(key)

    def with_keys(self, keys: Iterable[VerificationKey]) -> "KeySet":
        """Return a set with more keys."""
        mine = [key for same_id in self._keys.values() for key in same_id]
        return KeySet(secret=self._secret, keys=(*mine, *keys))

    def knows(self, key_id: str) -> bool:
        """Tell whether a key has this id."""
        return key_id in self._keys

    def choose(self, algorithm: str, key_id: str | None) -> VerificationKey:
        """Return the key that must have signed a token with this header.

        A key id that is known is binding. Otherwise only HS* may fall back to the shared secret.

        Raises:
            TokenError: If there is no such key.
        """
        named = self._keys.get(key_id) if key_id is not None else None
        if named is not None:
            for key in named:
                if algorithm in key.algorithms:
                    return key
        elif self._secret is not None and algorithm in self._secret.algorithms:
            return self._secret
        raise no_signer(key_id)


def secret_key(secret: str) -> VerificationKey:
    """Make the key of a shared secret.

    Raises:
        ConfigurationError: If it is empty, or is a public or private key, certificate or JWK: then
            it is probably published, and everybody could sign.
    """
    try:
        material = secret_material(secret.encode())
    except InvalidKeyError as error:
        message = "the JWT secret is empty, or a public key or certificate; expected random text"
        raise ConfigurationError(message) from error
    return VerificationKey(None, SHARED_SECRET_ALGORITHMS, material)


def secret_material(secret: bytes) -> bytes:
    """Return the bytes of an HMAC secret.

    Raises:
        InvalidKeyError: If it is empty or looks like a key of another kind.
    """
    return SHARED_SECRET_ALGORITHMS["HS256"].prepare_key(secret)
