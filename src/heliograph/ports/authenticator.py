"""The seam between sockets and tokens: who holds this key, and until when."""

from typing import Protocol

from heliograph.ports.identity import Identity


class Authenticator(Protocol):
    """Verifies API keys and tokens; `heliograph.server.keys.Keys` is one."""

    async def identify(self, text: str) -> Identity:
        """Return who shows this key or token: a JWT, URI-encoded or not, or an ``sb_…`` key.

        May fetch keys (a JWKS) first. That must be bounded: an unknown ``kid`` causes one fetch per
        interval, not one per token. The caller sets a deadline.

        Raises:
            TokenError: If it is not acceptable; the text and the code are those of the protocol
                (§1.5, §4.4), for example ``InvalidJWTToken`` and ``Token has expired 3 seconds
                ago``.
            UnavailableError: If keys are missing and can not be fetched now.
        """
        ...
