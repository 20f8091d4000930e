"""Verify a token: bytes, header, key, signature, claims. Pure; the clock is an argument.

Rules S2 and S3, realtime-protocol §1.3, auth-api §5. PyJWT is used for signatures only: its own
claim checks accept a string ``exp`` (measured with 2.15.1).
"""

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from types import MappingProxyType
from typing import Final, cast
from urllib.parse import unquote

from heliograph.core.tokens.bounded_json import decode_object, encode_object
from heliograph.core.tokens.key_set import KeySet
from heliograph.core.tokens.refusals import (
    claim_not_accepted,
    claims_missing,
    expired,
    expiry_invalid,
    malformed,
    no_signer,
    not_yet_valid,
    signature_invalid,
)
from heliograph.core.tokens.required_claims import unmet_claim
from heliograph.errors import TokenError
from heliograph.limits import TOKEN_BYTES_MAX, TOKEN_LEEWAY_S

_PART: Final = re.compile(r"[A-Za-z0-9_-]+")

#: header, payload, signature; a JWE has five.
_PART_COUNT: Final = 3

_KEY_ID_CHARACTERS_MAX: Final = 255

#: Algorithms that a JWKS fetched from elsewhere may know a key for.
_ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"}
)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The content of a token that was verified.

    Attributes:
        role: The role claim: a database role that the settings allow.
        claims: The payload, decoded.
        claims_json: The payload, encoded again: valid for jsonb, each key once.
        subject: ``sub`` as text; the JSON of what is no string, as ``->>`` gives it to policies.
            None if there is none, or null.
        expires_unix_s: ``exp``.
    """

    role: str
    claims: Mapping[str, object]
    claims_json: str
    subject: str | None
    expires_unix_s: float


def _no_claims() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Verifies tokens with a set of keys; immutable.

    Attributes:
        keys: The keys.
        role_claim: Name of the claim with the role; or a path through objects with dots
            (``app_metadata.role``), where no claim has that whole name.
        allowed_roles: Roles that a token may name.
        required_claims: Claims that must be there with exactly these values, for example ``iss``.
    """

    keys: KeySet
    role_claim: str = "role"
    allowed_roles: Collection[str] = frozenset({"anon", "authenticated", "service_role"})
    required_claims: Mapping[str, object] = field(default_factory=_no_claims)

    def with_keys(self, keys: KeySet) -> "TokenVerifier":
        """Return the same with other keys."""
        return replace(self, keys=keys)

    def verify(self, token: str, *, now_s: float) -> VerifiedToken:
        """Return the content of a token that is good now.

        Args:
            token: In compact form; percent-encoding and white space are undone first.
            now_s: Seconds since 1970-01-01 UTC.

        Raises:
            TokenError: If it is not good; with the reference's text and code.
        """
        header_part, payload_part, signature_part = _split(token)
        algorithm, key_id = _read_header(header_part)
        key = self.keys.choose(algorithm, key_id)
        message = f"{header_part}.{payload_part}".encode()
        if not key.verify(algorithm, message, _decode_part(signature_part)):
            raise signature_invalid()
        claims = decode_object(_decode_part(payload_part))
        role = self._role_of(claims)
        expires_unix_s = _check_times(claims, now_s)
        if role not in self.allowed_roles:
            raise claim_not_accepted(self.role_claim)
        unmet = unmet_claim(claims, self.required_claims)
        if unmet is not None:
            raise claim_not_accepted(unmet)
        return VerifiedToken(
            role=role,
            claims=MappingProxyType(claims),
            claims_json=encode_object(claims),
            subject=_text_of(claims.get("sub")),
            expires_unix_s=expires_unix_s,
        )

    def missing_key_id(self, token: str) -> str | None:
        """Return the key id that a token names and no key has; None if that is not its trouble.

        Its issuer may have a new key; whoever fetches keys may ask for them, at the address of the
        settings and never at one from the token. A token that no key can make good is not worth it.
        """
        try:
            header_part, payload_part, signature_part = _split(token)
            algorithm, key_id = _read_header(header_part)
            decode_object(_decode_part(payload_part))
            _decode_part(signature_part)
        except TokenError:
            return None
        if key_id is None or algorithm not in _ASYMMETRIC or self.keys.knows(key_id):
            return None
        return key_id

    def _role_of(self, claims: Mapping[str, object]) -> str:
        value: object = claims.get(self.role_claim)
        if self.role_claim not in claims:
            value = reduce(_member, self.role_claim.split("."), cast("object", claims))
        if not isinstance(value, str) or not value or "exp" not in claims:
            raise claims_missing()
        return value


def _text_of(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)


def _member(value: object, name: str) -> object:
    return cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None


def _split(token: str) -> tuple[str, str, str]:
    # Before and after decoding: percent-encoding makes it longer, never shorter.
    if len(token) > 3 * TOKEN_BYTES_MAX:
        raise malformed()
    compact = "".join(unquote(token, errors="replace").split())
    parts = compact.split(".", _PART_COUNT)
    if len(compact) > TOKEN_BYTES_MAX or len(parts) != _PART_COUNT:
        raise malformed()
    header, payload, signature = parts
    return header, payload, signature


def _read_header(part: str) -> tuple[str, str | None]:
    header = decode_object(_decode_part(part))
    algorithm, key_id = header.get("alg"), header.get("kid")
    # `crit` names extensions that must be understood; we understand none (RFC 7515 §4.1.11).
    if "crit" in header or not isinstance(algorithm, str):
        raise malformed()
    if key_id is not None and (
        not isinstance(key_id, str) or not 0 < len(key_id) <= _KEY_ID_CHARACTERS_MAX
    ):
        raise malformed()
    # An asymmetric key must be named, or whoever adds a key would decide for all tokens.
    if algorithm in _ASYMMETRIC and key_id is None:
        raise no_signer(None)
    return algorithm, key_id


def _decode_part(part: str) -> bytes:
    if _PART.fullmatch(part) is None:
        raise malformed()
    try:
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise malformed() from error
    # One value, one text: bits that no byte uses must be zero.
    if base64.urlsafe_b64encode(content).rstrip(b"=") != part.encode():
        raise malformed()
    return content


def _check_times(claims: Mapping[str, object], now_s: float) -> float:
    expires = _number_of(claims["exp"])
    if expires is None:
        raise expiry_invalid()
    if expires <= now_s:
        raise expired(round(now_s - expires))
    if "iat" in claims and _number_of(claims["iat"]) is None:
        raise malformed()
    if "nbf" in claims:
        not_before = _number_of(claims["nbf"])
        if not_before is None:
            raise malformed()
        # No leeway for `exp`: a channel is cut at that very second. The issuer's clock may be
        # ahead of ours, so that a token made just now is not valid yet.
        if not_before > now_s + TOKEN_LEEWAY_S:
            raise not_yet_valid()
    return float(expires)


def _number_of(value: object) -> int | float | None:
    """Return a JSON number; None for anything else. A bool is an int for Python, not for JSON."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
