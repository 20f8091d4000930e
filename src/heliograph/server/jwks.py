"""Fetch the key set of an issuer (``HELIOGRAPH_JWKS_URL``) and keep it fresh.

The address comes from the settings and from nowhere else: no token and no redirect can choose it
(S2, S25). A fetch that fails keeps the keys of the last one; a key that the issuer withdrew is gone
with the next fetch that succeeds.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx
import structlog

from heliograph import limits
from heliograph.config.values import parse_key_set_url
from heliograph.core.tokens.jwks import read_jwks
from heliograph.core.tokens.key_set import VerificationKey
from heliograph.errors import ConfigurationError, UnavailableError
from heliograph.ports.clock import Clock

_log = structlog.get_logger("heliograph.jwks")

_HTTP_OK: Final = 200


def log_read_keys(usable_keys: int, left_out: Sequence[str], *, source: str) -> None:
    """Say what was found in a JWKS; a warning if that is no key, or less than it holds."""
    log = _log.info if usable_keys and not left_out else _log.warning
    log("jwks_read", source=source, usable_keys=usable_keys, left_out=list(left_out))


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
        self._fetching: asyncio.Task[None] | None = None
        self._asked_s: float | None = None
        self._fetched_s: float | None = None
        self._keys: tuple[VerificationKey, ...] = ()
        self._problem = "not fetched yet"
        self._logged: tuple[str, int, tuple[str, ...]] | None = None

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys of the last fetch that succeeded; empty before it."""
        return self._keys

    @property
    def problem(self) -> str:
        """Why the last fetch failed; the empty string if it succeeded."""
        return self._problem

    async def refresh(self) -> None:
        """Fetch now, or wait for the fetch under way.

        Raises:
            UnavailableError: If the address does not answer with a usable key set.
        """
        await self._wait_fetched()
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
        if self._is_fetching():
            # With keys that are merely old nobody else needs to wait for a slow issuer.
            if wants_new_key or not self._keys:
                await self._wait_fetched()
        elif self._is_older_than(self._asked_s, limits.JWKS_REFETCH_INTERVAL_S):
            await self._wait_fetched()

    def _is_fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    async def _wait_fetched(self) -> None:
        """Wait for the fetch under way, or begin one.

        It has a task of its own: a client that leaves, or shows another token, must not take the
        keys from all others until the next fetch is due. It ends by `JWKS_TIMEOUT_S`.
        """
        if self._fetching is None or self._fetching.done():
            work = self._fetch()
            self._fetching = asyncio.create_task(work)  # noqa: TID251 - outlives who began it
        await asyncio.shield(self._fetching)

    def _is_older_than(self, then_s: float | None, age_s: float) -> bool:
        return then_s is None or self._clock.monotonic_s() - then_s >= age_s

    async def _fetch(self) -> None:
        self._asked_s = self._clock.monotonic_s()
        left_out: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(limits.JWKS_TIMEOUT_S):
                content = await self._download()
            read = read_jwks(content, may_hold_secrets=False)
            self._keys, left_out = read.keys, read.left_out
        except TimeoutError:
            self._problem = f"no answer within {limits.JWKS_TIMEOUT_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._problem = type(error).__name__
        except (ConfigurationError, UnavailableError) as error:
            self._problem = str(error)
        else:
            self._fetched_s = self._clock.monotonic_s()
            self._problem = ""
        self._log_change(left_out)

    def _log_change(self, left_out: tuple[str, ...]) -> None:
        """Log what became of a fetch, unless it is what became of the last one."""
        said = (self._problem, len(self._keys), left_out)
        if said == self._logged:
            return
        self._logged = said
        if self._problem:
            _log.warning("jwks_not_fetched", problem=self._problem, usable_keys=len(self._keys))
        else:
            log_read_keys(len(self._keys), left_out, source="HELIOGRAPH_JWKS_URL")

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
