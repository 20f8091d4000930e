"""From the settings to whoever verifies keys and tokens."""

import structlog

from heliograph.config import Settings
from heliograph.core.tokens.api_keys import ApiKeys
from heliograph.core.tokens.jwks import read_jwks
from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.token_verifier import TokenVerifier
from heliograph.errors import TokenError
from heliograph.ports.clock import Clock
from heliograph.server.jwks import RemoteKeys, log_read_keys
from heliograph.server.keys import Keys

_log = structlog.get_logger("heliograph.keys")


def make_keys(settings: Settings, clock: Clock) -> Keys:
    """Put together the keys that the settings name.

    Raises:
        ConfigurationError: If a key set can not be read.
    """
    secret = None if settings.jwt_secret is None else secret_key(settings.jwt_secret.reveal())
    keys = KeySet(secret=secret)
    if settings.jwks is not None:
        read = read_jwks(settings.jwks.reveal(), may_hold_secrets=True)
        if read.left_out:
            log_read_keys(len(read.keys), read.left_out, source="HELIOGRAPH_JWKS")
        keys = keys.with_keys(read.keys)
    verifier = TokenVerifier(
        keys,
        role_claim=settings.role_claim,
        allowed_roles=frozenset(settings.roles),
        required_claims=settings.jwt_claim_validators or {},
    )
    roles = {
        settings.publishable_key: "anon",
        settings.anon_key: "anon",
        settings.secret_key: "service_role",
        settings.service_role_key: "service_role",
    }
    api_keys = ApiKeys({key.reveal(): role for key, role in roles.items() if key is not None})
    remote = None if settings.jwks_url is None else RemoteKeys(settings.jwks_url, clock)
    known = Keys(verifier=verifier, api_keys=api_keys, clock=clock, remote=remote)
    _warn_of_refused(known, settings)
    return known


def _warn_of_refused(known: Keys, settings: Settings) -> None:
    """Log which legacy key of the settings no client can use."""
    for variable, key in (
        ("SUPABASE_ANON_KEY", settings.anon_key),
        ("SUPABASE_SERVICE_ROLE_KEY", settings.service_role_key),
    ):
        if key is None:
            continue
        try:
            known.verify(key.reveal())
        except TokenError as error:
            _log.warning("api_key_refused", variable=variable, problem=str(error))
