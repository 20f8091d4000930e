"""Make tokens and keys. Time and randomness are arguments."""

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import jwt

from heliograph.errors import ConfigurationError
from heliograph.limits import JWT_SECRET_BYTES_MIN

#: From 2026-01-01 to 2036-01-01 UTC. Fixed, so that a secret always gives the same legacy keys:
#: nobody has to store them, and a restart changes no client's configuration.
_LEGACY_KEY_ISSUED_UNIX_S: Final = 1_767_225_600
_LEGACY_KEY_LIFETIME_S: Final = 315_532_800

_KEY_BYTES_MIN: Final = 16

_NO_CLAIMS: Final[Mapping[str, object]] = MappingProxyType({})


def mint_token(secret: str, claims: Mapping[str, object], *, now_s: float, ttl_s: float) -> str:
    """Sign claims with HS256; ``iat`` and ``exp`` are set here.

    Args:
        secret: At least `JWT_SECRET_BYTES_MIN` bytes.
        claims: Everything else; must hold ``role`` for our own verifier.
        now_s: Seconds since 1970-01-01 UTC.
        ttl_s: Seconds that the token is good for.

    Raises:
        ConfigurationError: If the secret is too short: it could be guessed from one token.
    """
    if len(secret.encode()) < JWT_SECRET_BYTES_MIN:
        message = f"the JWT secret is shorter than {JWT_SECRET_BYTES_MIN} bytes"
        raise ConfigurationError(message)
    times = {"iat": int(now_s), "exp": int(now_s + ttl_s)}
    return jwt.encode({**claims, **times}, secret, algorithm="HS256")


def mint_legacy_key(
    secret: str,
    role: str,
    *,
    role_claim: str = "role",
    required_claims: Mapping[str, object] = _NO_CLAIMS,
) -> str:
    """Make the legacy API key of ``anon`` or ``service_role``; the same settings, the same key.

    Args:
        secret: At least `JWT_SECRET_BYTES_MIN` bytes.
        role: The role.
        role_claim: The claim that names it to the server, beside ``role``.
        required_claims: Claims that the server wants in every token.

    Raises:
        ConfigurationError: If the secret is too short.
    """
    return mint_token(
        secret,
        {"iss": "heliograph", **required_claims, "role": role, role_claim: role},
        now_s=_LEGACY_KEY_ISSUED_UNIX_S,
        ttl_s=_LEGACY_KEY_LIFETIME_S,
    )


def mint_api_key(prefix: str, random: bytes) -> str:
    """Make an opaque API key from a prefix of `api_keys` and random bytes.

    Raises:
        ConfigurationError: If there are fewer than 16 bytes.
    """
    if len(random) < _KEY_BYTES_MIN:
        message = f"an API key needs {_KEY_BYTES_MIN} random bytes"
        raise ConfigurationError(message)
    return prefix + base64.urlsafe_b64encode(random).decode().rstrip("=")
