"""The legacy API keys of Supabase projects: JWTs whose role claim says what they are.

This is a check of the operator's settings at start, not of a caller: a swapped or foreign key is
found before the first client is. Callers' tokens are verified in ``core/tokens``.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Final, cast

from heliograph.config.secret import Secret
from heliograph.core.tokens.required_claims import unmet_claim

_NEWER_KEYS: Final = {
    "sb_publishable_": "HELIOGRAPH_PUBLISHABLE_KEY",
    "sb_secret_": "HELIOGRAPH_SECRET_KEY",
}

#: header, claims, signature (RFC 7515)
_PARTS: Final = 3


def legacy_key_parser(role: str) -> Callable[[str], Secret]:
    """Return a parser of the legacy key of `role`.

    It refuses a newer key (and names its variable) and a key of another role: a service_role key
    handed out as the anon key would open the whole database.
    """

    def parse(text: str) -> Secret:
        for prefix, variable in _NEWER_KEYS.items():
            if text.startswith(prefix):
                expected = f"holds a newer key; put it into {variable}"
                raise ValueError(expected)
        expected = f"expected a JWT with the claim role={role}"
        claims = _json_part(text, 1)
        if claims is None:
            raise ValueError(expected)
        if claims.get("role") != role:
            expected = f"{expected}; it is a key of another role"
            raise ValueError(expected)
        return Secret(text)

    return parse


def is_signed(key: Secret, jwt_secret: Secret) -> bool:
    """Return whether `key` is an HS256 JWT (RFC 7515) signed with `jwt_secret`."""
    token = key.reveal()
    header = _json_part(token, 0)
    if header is None or header.get("alg") != "HS256":
        return False
    signed, _, signature = token.rpartition(".")
    expected = hmac.new(jwt_secret.reveal().encode(), signed.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(expected).rstrip(b"="), signature.encode())


def lacking_claim(key: Secret, required: Mapping[str, object]) -> str | None:
    """Return the first required claim that `key` does not have with its value; None if it has all.

    The signature is not looked at.
    """
    return unmet_claim(_json_part(key.reveal(), 1) or {}, required)


def has_expired(key: Secret) -> bool:
    """Return whether `key` says of itself that it is valid no more (RFC 7519, ``exp``)."""
    expires_s = (_json_part(key.reveal(), 1) or {}).get("exp")
    now_s = time.time()  # noqa: TID251 - settings are read once, when a process starts
    # A bool is an int for Python, not for JSON.
    if not isinstance(expires_s, int | float) or isinstance(expires_s, bool):
        return False
    return expires_s <= now_s


def _json_part(token: str, index: int) -> dict[str, object] | None:
    parts = token.split(".")
    if len(parts) != _PARTS:
        return None
    padded = parts[index] + "=" * (-len(parts[index]) % 4)
    try:
        document: object = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
    # A JSON object has text keys only (RFC 8259 section 4).
    return cast("dict[str, object]", document) if isinstance(document, dict) else None
