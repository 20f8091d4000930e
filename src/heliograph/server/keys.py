"""From what a caller shows to who it is: API keys and tokens become an `Identity`."""

from types import MappingProxyType

from heliograph.core.tokens.api_keys import ApiKeys, is_opaque_key
from heliograph.core.tokens.bounded_json import encode_object
from heliograph.core.tokens.refusals import unknown_api_key
from heliograph.core.tokens.token_verifier import TokenVerifier, VerifiedToken
from heliograph.errors import TokenError, UnavailableError
from heliograph.ports.clock import Clock
from heliograph.ports.identity import Identity
from heliograph.server.jwks import RemoteKeys


class Keys:
    """Knows the server's keys; one for all connections."""

    def __init__(
        self,
        *,
        verifier: TokenVerifier,
        api_keys: ApiKeys,
        clock: Clock,
        remote: RemoteKeys | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            verifier: With the keys of the settings.
            api_keys: Opaque keys, and the legacy keys of the settings: a project that signs with
                keys we can not verify may still show those.
            clock: For the times in tokens.
            remote: Keys that are fetched, if the settings name an address.
        """
        self._own = verifier
        self._verifier = verifier
        self._api_keys = api_keys
        self._clock = clock
        self._remote = remote

    async def identify(self, text: str) -> Identity:
        """Return who shows this token or key; only a token of the issuer may wait for a fetch.

        What the keys of the settings decide is decided at once, however slow the issuer is.

        Raises:
            TokenError: If it is not good; see `refusals` for the texts.
            UnavailableError: If it names a key that is not known and the issuer does not tell its
                keys now: the token may be good.
        """
        remote = self._remote
        if remote is None or is_opaque_key(text) or self._own.missing_key_id(text) is None:
            return self.verify(text)
        await self._refresh_from(remote, text)
        try:
            return self.verify(text)
        except TokenError as error:
            if remote.problem and self._verifier.missing_key_id(text) is not None:
                message = "the keys of the token's issuer can not be had now"
                raise UnavailableError(message) from error
            raise

    async def _refresh_from(self, remote: RemoteKeys, token: str) -> None:
        """Fetch keys if they are old or the token names a new one, and then rarely.

        Never raises: a fetch that fails keeps the keys of the last one.
        """
        wants_new_key = self._verifier.missing_key_id(token) is not None
        await remote.refresh_if_due(wants_new_key=wants_new_key)
        # Cheap, and right after a fetch that another task waited for.
        self._verifier = self._own.with_keys(self._own.keys.with_keys(remote.keys))

    def verify(self, token: str) -> Identity:
        """Return who shows this token or key, by the keys in memory.

        Raises:
            TokenError: If it is not good; see `refusals` for the texts.
        """
        if is_opaque_key(token):
            role = self._api_keys.role_of(token)
            if role is None:
                raise unknown_api_key()
            return _identity_of_key(role)
        try:
            return _identity_of(self._verifier.verify(token, now_s=self._clock.unix_s()))
        except TokenError as error:
            role = self._legacy_role(token, error)
            if role is None:
                raise
            return _identity_of_key(role)

    def _legacy_role(self, text: str, error: TokenError) -> str | None:
        """Return the role of a legacy key whose signature we can not check; None for others."""
        if error.reference_code not in ("JwtSignerError", "JwtSignatureError"):
            return None
        return self._api_keys.role_of(text)


def _identity_of(token: VerifiedToken) -> Identity:
    return Identity(
        role=token.role,
        claims_json=token.claims_json,
        claims=token.claims,
        subject=token.subject,
        expires_unix_s=token.expires_unix_s,
    )


def _identity_of_key(role: str) -> Identity:
    claims: dict[str, object] = {"role": role}
    return Identity(
        role=role,
        claims_json=encode_object(claims),
        claims=MappingProxyType(claims),
        subject=None,
        expires_unix_s=None,
    )
