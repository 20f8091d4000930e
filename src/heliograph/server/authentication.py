"""From the settings to whoever verifies keys and tokens."""

from heliograph.config import Settings
from heliograph.core.tokens.api_keys import ApiKeys
from heliograph.core.tokens.jwks import read_jwks
from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.token_verifier import TokenVerifier
from heliograph.ports.clock import Clock
from heliograph.server.jwks import RemoteKeys, log_read_keys
from heliograph.server.keys import Keys


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
    return Keys(verifier=verifier, api_keys=api_keys, clock=clock, remote=remote)
