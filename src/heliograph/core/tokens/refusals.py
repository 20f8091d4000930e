"""The texts with which Supabase Realtime refuses tokens; clients show them to people.

A join error is ``code: text`` (realtime-protocol §4.4); a handshake is refused with the text alone
(§1.5), and there an expired token does not say since when.
"""

from typing import Final

from heliograph.errors import TokenError

_MALFORMED_TEXT: Final = "The token provided is not a valid JWT"
_EXPIRED_TEXT: Final = "Token has expired"
_SIGNER_HINT: Final = "check your JWT secret or JWKS configuration"

#: A key id is shown only if it can not disturb whoever reads it.
_KEY_ID_CHARACTERS_SHOWN_MAX: Final = 64


def malformed() -> TokenError:
    """Refuse what is no token: form, size, encoding, JSON, header, types of claims."""
    return TokenError(_MALFORMED_TEXT, reference_code="MalformedJWT")


def signature_invalid() -> TokenError:
    """Refuse a token that the key named by it did not sign."""
    return TokenError("Failed to validate JWT signature", reference_code="JwtSignatureError")


def no_signer(key_id: str | None) -> TokenError:
    """Refuse a token for whose algorithm and key id there is no key."""
    is_shown = (
        key_id is not None
        and key_id.isascii()
        and key_id.isprintable()
        and len(key_id) <= _KEY_ID_CHARACTERS_SHOWN_MAX
    )
    named = f' for key ID (kid) "{key_id}"' if is_shown else ""
    text = f"Failed to generate JWT signer{named}, {_SIGNER_HINT}"
    return TokenError(text, reference_code="JwtSignerError")


def claims_missing() -> TokenError:
    """Refuse a token without a role or without an expiry."""
    text = "Fields `role` and `exp` are required in JWT"
    return TokenError(text, reference_code="InvalidJWTToken")


def expiry_invalid() -> TokenError:
    """Refuse a token whose ``exp`` is no number."""
    return TokenError("Token expiration time is invalid", reference_code="InvalidJWTToken")


def expired(seconds_ago: int) -> TokenError:
    """Refuse a token whose time is over."""
    text = f"{_EXPIRED_TEXT} {seconds_ago} seconds ago"
    return TokenError(text, reference_code="InvalidJWTToken")


def not_yet_valid() -> TokenError:
    """Refuse a token whose ``nbf`` lies in the future; the reference has no text for it."""
    return TokenError("Token is not valid yet", reference_code="InvalidJWTToken")


def claim_not_accepted(claim: str) -> TokenError:
    """Refuse a token of another role, issuer or audience; the reference has no text for it."""
    text = f"Claim `{claim}` of the token is not one that this server accepts"
    return TokenError(text, reference_code="InvalidJWTToken")


def api_key_missing() -> TokenError:
    """Refuse a connection that shows no key at all."""
    return TokenError("API key is missing", reference_code="MissingApiKey")


def unknown_api_key() -> TokenError:
    """Refuse an ``sb_…`` key that is not one of ours."""
    return TokenError("Invalid authentication credentials", reference_code="InvalidApiKey")


def handshake_text(error: TokenError) -> str:
    """Return the text of a refused handshake (HTTP 401, ``{"error": text}``)."""
    text = str(error)
    return _EXPIRED_TEXT if text.startswith(f"{_EXPIRED_TEXT} ") else text


def join_text(error: TokenError) -> str:
    """Return the ``reason`` of a refused join: ``code: text``."""
    return f"{error.reference_code}: {error}"
