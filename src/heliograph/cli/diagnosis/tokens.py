"""Why a token is refused: the verifier decides, this says the same in terms of what to do.

Nothing of the token is repeated but its algorithm, key id, role and times; what is read before the
signature is checked is only used to explain.
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn
from heliograph.config import Settings
from heliograph.core.tokens.bounded_json import decode_object
from heliograph.core.tokens.refusals import (
    claim_not_accepted,
    claims_missing,
    expiry_invalid,
    join_text,
    not_yet_valid,
)
from heliograph.errors import TokenError
from heliograph.limits import TOKEN_BYTES_MAX
from heliograph.ports.identity import Identity

#: header, claims, signature; an encrypted token has two more.
_PARTS: Final = 3
_ENCRYPTED_PARTS: Final = 5

#: A key id is shown only if it can not disturb whoever reads it.
_SHOWN_CHARACTERS: Final = 40


class _Why(NamedTuple):
    """What is wrong, and what to do."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TokenContext:
    """What a token is judged by, besides the keys.

    Attributes:
        settings: The settings.
        now_s: Seconds since 1970-01-01 UTC.
        database_roles: Which of HELIOGRAPH_ROLES the database has; None if it is not known.
    """

    settings: Settings
    now_s: float
    database_roles: Collection[str] | None


def judge_good_token(identity: Identity, context: TokenContext) -> Check:
    """Judge a token or key that the server accepts."""
    role = identity.role
    if context.database_roles is not None and role not in context.database_roles:
        return fail(
            CheckName.TOKEN,
            f"it is good, but the database has no role {role}: joins are refused",
            f"run `heliograph migrate`, or: CREATE ROLE {role} NOLOGIN; and GRANT it what it may"
            " read",
        )
    if role == "service_role":
        return warn(
            CheckName.TOKEN,
            "it is good and stands for service_role, which passes by every policy",
            "keep it on servers: connections from a browser are refused with it",
        )
    if identity.expires_unix_s is None:
        return ok(CheckName.TOKEN, f"it is a good API key for the role {role}")
    left_s = identity.expires_unix_s - context.now_s
    return ok(CheckName.TOKEN, f"it is good: role {role}, {left_s:.0f} s left")


def judge_unknown_token(reason: str) -> Check:
    """Judge a token whose issuer's keys can not be had."""
    return fail(
        CheckName.TOKEN,
        f"it can not be judged: {reason}",
        "let HELIOGRAPH_JWKS_URL be an address that this machine reaches and that answers with the"
        " issuer's keys",
    )


def judge_refused_token(token: str, error: TokenError, context: TokenContext) -> Check:
    """Say why a token is refused, and what to do.

    Args:
        token: As it was given; never repeated.
        error: What the verifier said.
        context: What else is known.
    """
    match error.reference_code:
        case "InvalidApiKey":
            why = _Why(
                "it is an sb_ key that is none of this server's",
                "set HELIOGRAPH_PUBLISHABLE_KEY or HELIOGRAPH_SECRET_KEY to it, or give clients the"
                " key that is set there",
            )
        case "JwtSignerError":
            why = _explain_signer(token, context.settings)
        case "JwtSignatureError":
            why = _explain_signature(token)
        case "MalformedJWT":
            why = _explain_form(token)
        case _:
            why = _explain_claims(token, error, context)
    told = join_text(error)
    return fail(CheckName.TOKEN, f"{why.problem} (clients are told {told!r})", why.remedy)


def _explain_form(token: str) -> _Why:
    text = token.strip()
    parts = text.split(".")
    again = "copy it again, whole: three pieces of letters, digits, - and _ with dots between them"
    found = (
        (
            text.lower().startswith("bearer "),
            _Why("it begins with the word Bearer, which is no part of it", "leave that word out"),
        ),
        (text[:1] in {'"', "'"}, _Why("it has quotation marks around it", "leave them out")),
        (
            len(text) > TOKEN_BYTES_MAX,
            _Why(
                f"it has {len(text)} characters; {TOKEN_BYTES_MAX} are the most",
                "let the issuer put fewer claims into it",
            ),
        ),
        (
            len(parts) == _ENCRYPTED_PARTS,
            _Why("it is encrypted (five pieces, a JWE)", "let the issuer sign tokens instead"),
        ),
        (
            len(parts) != _PARTS,
            _Why(f"it is no JWT: it has {len(parts)} pieces between dots, not 3", again),
        ),
        (
            _part_of(text, 0) is None,
            _Why("its first piece, the header, is not base64url of a JSON object", again),
        ),
        (
            _part_of(text, 1) is None,
            _Why(
                "its second piece, the claims, is not base64url of a JSON object that names each"
                " claim once",
                again,
            ),
        ),
    )
    otherwise = _Why(
        "its header has no `alg`, or a `crit` or `kid` that is not accepted; or its `iat` or `nbf`"
        " is no number; or its signature is not base64url",
        "let the issuer write it as RFC 7515 and RFC 7519 say",
    )
    return next((why for applies, why in found if applies), otherwise)


def _explain_signer(token: str, settings: Settings) -> _Why:
    header = _part_of(token, 0) or {}
    algorithm, key_id = header.get("alg"), header.get("kid")
    if isinstance(algorithm, str) and algorithm.lower() == "none":
        return _Why(
            "it is not signed (alg none), and everybody can write such a token",
            "let the issuer sign it",
        )
    known = [
        variable
        for variable, value in (
            ("HELIOGRAPH_JWT_SECRET (HS256, HS384, HS512)", settings.jwt_secret),
            ("HELIOGRAPH_JWKS", settings.jwks),
            ("HELIOGRAPH_JWKS_URL", settings.jwks_url),
        )
        if value is not None
    ]
    problem = f"no key of this server goes with alg {_shown(algorithm)}, kid {_shown(key_id)}"
    is_shared = isinstance(algorithm, str) and algorithm.startswith("HS")
    if not known:
        remedy = "set HELIOGRAPH_JWT_SECRET, HELIOGRAPH_JWKS or HELIOGRAPH_JWKS_URL"
    elif is_shared and settings.jwt_secret is None:
        remedy = "set HELIOGRAPH_JWT_SECRET to the secret of the token's issuer"
    elif is_shared:
        remedy = "let the token name no key id, or one that HELIOGRAPH_JWKS has for this algorithm"
    elif key_id is None:
        remedy = "let the issuer name its key in the header (`kid`)"
    else:
        remedy = (
            "let HELIOGRAPH_JWKS_URL (or HELIOGRAPH_JWKS) have the issuer's key of this id, for"
            " this algorithm"
        )
    return _Why(f"{problem}; there are {', '.join(known) or 'none'}", remedy)


def _explain_signature(token: str) -> _Why:
    header = _part_of(token, 0) or {}
    if str(header.get("alg")).startswith("HS"):
        return _Why(
            "it was signed with another secret than HELIOGRAPH_JWT_SECRET, or changed afterwards",
            "take the token from this server's issuer, or set HELIOGRAPH_JWT_SECRET to that"
            " issuer's secret, letter by letter (no quotation marks, no base64 decoding)",
        )
    return _Why(
        f"the key {_shown(header.get('kid'))} did not sign it, or it was changed afterwards",
        "copy it again, whole; if that does not help, the key set has another key of the same id",
    )


def _explain_claims(token: str, error: TokenError, context: TokenContext) -> _Why:
    """Explain what is wrong with a token that is signed well."""
    claims = _part_of(token, 1) or {}
    role_claim = context.settings.role_claim
    text = str(error)
    if text == str(claims_missing()):
        what = "role" if "exp" in claims else "end"
        claim = role_claim if "exp" in claims else "exp"
        return _Why(
            f"it has no {what}: the claim `{claim}` is missing or empty",
            f"let the issuer set `{claim}`; `heliograph keys --role authenticated` mints one that"
            " has both",
        )
    if text == str(expiry_invalid()):
        return _Why("its `exp` is no number", "let the issuer write `exp` as seconds since 1970")
    if text == str(not_yet_valid()):
        return _Why(
            f"it is not valid before {_seconds(claims.get('nbf'), context.now_s)} from now (`nbf`)",
            "correct the clocks: the issuer's is ahead of this machine's, see docs/troubleshooting/"
            "clock-skew.md",
        )
    if text == str(claim_not_accepted(role_claim)):
        roles = ", ".join(context.settings.roles)
        return _Why(
            f"its role is none of HELIOGRAPH_ROLES ({roles})",
            f"let the issuer write one of them into `{role_claim}`, or add the role to"
            " HELIOGRAPH_ROLES; HELIOGRAPH_ROLE_CLAIM names the claim",
        )
    for claim in context.settings.jwt_claim_validators or {}:
        if text == str(claim_not_accepted(claim)):
            return _Why(
                f"its claim `{claim}` is {'another one' if claim in claims else 'missing'}:"
                " HELIOGRAPH_JWT_CLAIM_VALIDATORS asks for one value",
                "take a token that was made for this server, or correct the setting",
            )
    return _Why(
        f"it has expired {_seconds(claims.get('exp'), context.now_s)} ago",
        "refresh it (`supabase.auth.refreshSession()`), or mint one: `heliograph keys --user …`;"
        " if it is new, compare the clocks: docs/troubleshooting/clock-skew.md",
    )


def _seconds(then: object, now_s: float) -> str:
    return f"{abs(float(then) - now_s):.0f} s" if isinstance(then, int | float) else "some time"


def _shown(value: object) -> str:
    """Return a name from a header nobody has checked, if it is a harmless one."""
    if value is None:
        return "none"
    text = str(value)
    is_harmless = text.isascii() and text.isprintable() and len(text) <= _SHOWN_CHARACTERS
    return text if is_harmless else "that can not be shown"


def _part_of(token: str, index: int) -> Mapping[str, object] | None:
    parts = token.strip().split(".")
    try:
        part = parts[index]
        content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        return decode_object(content)
    except (IndexError, binascii.Error, ValueError, TokenError):
        return None
