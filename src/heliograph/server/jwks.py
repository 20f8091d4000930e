"""Fetch the key set of an issuer (``HELIOGRAPH_JWKS_URL``) and keep it fresh.

The address comes from the settings and from nowhere else: no token and no redirect can choose it
(S2, S25). A fetch that fails keeps the keys of the last one; a key that the issuer withdrew is gone
with the next fetch that succeeds.
"""

import asyncio
from typing import Final

import httpx

from heliograph import limits
from heliograph.config.values import parse_key_set_url
from heliograph.core.tokens.jwks import read_jwks
from heliograph.core.tokens.key_set import VerificationKey
from heliograph.errors import ConfigurationError, UnavailableError
from heliograph.ports.clock import Clock

_HTTP_OK: Final = 200


class RemoteKeys:
    """The keys that an address publishes; safe to use from many tasks."""

    def __init__(
        self, url: str, clock: Clock, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Take the address.

        Args:
            url: As `parse_key_set_url` accepts it: https, or http on this machine.
            clock: Tells how old the keys are.
            transport: How to reach the address; tests give their own.

        Raises:
            ConfigurationError: If the address is neither.
        """
        try:
            self._url = parse_key_set_url(url)
        except ValueError as error:
            message = f"HELIOGRAPH_JWKS_URL: {error}"
            raise ConfigurationError(message) from error
        self._clock = clock
        self._transport = transport
        self._lock = asyncio.Lock()
        self._asked_s: float | None = None
        self._fetched_s: float | None = None
        self._keys: tuple[VerificationKey, ...] = ()
        self._problem = "not fetched yet"

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys of the last fetch that succeeded; empty before it."""
        return self._keys

    @property
    def problem(self) -> str:
        """Why the last fetch failed; the empty string if it succeeded. For logs and ``/ready``."""
        return self._problem

    async def refresh(self) -> None:
        """Fetch now.

        Raises:
            UnavailableError: If the address does not answer with a usable key set.
        """
        async with self._lock:
            await self._fetch()
        if self._problem:
            message = f"the key set of HELIOGRAPH_JWKS_URL can not be had: {self._problem}"
            raise UnavailableError(message)

    async def refresh_if_due(self, *, wants_new_key: bool = False) -> None:
        """Fetch if the keys are old, or if a token names one that we do not have.

        At most one fetch in `JWKS_REFETCH_INTERVAL_S`, whatever clients send; who needs its result
        waits for the one under way. Never raises for a fetch that fails: see `problem`.
        """
        is_old = self._is_older_than(self._fetched_s, limits.JWKS_AGE_S_MAX)
        if not (is_old or wants_new_key):
            return
        if self._lock.locked():
            # With keys that are merely old nobody else needs to wait for a slow issuer.
            if wants_new_key or not self._keys:
                async with self._lock:
                    pass
        elif self._is_older_than(self._asked_s, limits.JWKS_REFETCH_INTERVAL_S):
            async with self._lock:
                await self._fetch()

    def _is_older_than(self, then_s: float | None, age_s: float) -> bool:
        return then_s is None or self._clock.monotonic_s() - then_s >= age_s

    async def _fetch(self) -> None:
        self._asked_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(limits.JWKS_TIMEOUT_S):
                content = await self._download()
            self._keys = read_jwks(content, may_hold_secrets=False).keys
        except TimeoutError:
            self._problem = f"no answer within {limits.JWKS_TIMEOUT_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._problem = type(error).__name__
        except (ConfigurationError, UnavailableError) as error:
            self._problem = str(error)
        else:
            self._fetched_s = self._clock.monotonic_s()
            self._problem = ""

    async def _download(self) -> bytes:
        async with (
            httpx.AsyncClient(
                follow_redirects=False,
                timeout=limits.JWKS_TIMEOUT_S,
                transport=self._transport,
            ) as client,
            client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != _HTTP_OK:
                message = f"status {response.status_code}"
                raise UnavailableError(message)
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > limits.JWKS_BYTES_MAX:
                    message = f"more than {limits.JWKS_BYTES_MAX} bytes"
                    raise UnavailableError(message)
            return bytes(content)
