"""Decides about WebSocket handshakes, for both adapters (protocol §1.2, §1.5; S1, S8).

Every refusal is an HTTP answer with our own text; a socket is only accepted once its key is known
to be good, which may take a fetch of keys first.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from heliograph.core.channels.bearer import SERVICE_ROLE
from heliograph.core.channels.server_channel import Opening
from heliograph.core.tokens.refusals import api_key_missing, handshake_text
from heliograph.core.wire.messages import SerializerVersion
from heliograph.errors import TokenError, UnavailableError
from heliograph.limits import HANDSHAKE_DEADLINE_S, QUERY_FIELDS_MAX
from heliograph.ports.authenticator import Authenticator
from heliograph.ports.identity import Identity
from heliograph.server.origins import OriginPolicy

#: Where clients connect; behind Supabase's gateway the second is what the server sees.
WEBSOCKET_PATHS: Final = ("/realtime/v1/websocket", "/socket/websocket")

_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """An HTTP request that wants to become a WebSocket.

    Attributes:
        query_string: Raw, without the question mark.
        headers: Lower-case names and values, in order, repetitions included.
    """

    query_string: str
    headers: Sequence[tuple[str, str]]

    def values(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True)
class HandshakeRefusal:
    """What to answer instead of 101.

    Attributes:
        status: HTTP status.
        error: Text of the JSON body ``{"error": …}``; None for an empty body.
    """

    status: int
    error: str | None

    @property
    def body(self) -> bytes:
        """The response body."""
        return b"" if self.error is None else msgspec.json.encode({"error": self.error})

    @property
    def content_type(self) -> str:
        """The response's media type."""
        return "text/plain; charset=utf-8" if self.error is None else "application/json"

    def to_http(self, *extra_headers: str) -> bytes:
        """Return the whole HTTP/1.1 response, after which the connection is closed."""
        head = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body)}",
            "connection: close",
            *extra_headers,
        ]
        return "\r\n".join([*head, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class HandshakePolicy:
    """Who may open a socket.

    Attributes:
        authenticator: Verifies the key.
        origins: Which web pages may.
    """

    authenticator: Authenticator
    origins: OriginPolicy

    async def decide(self, request: HandshakeRequest) -> Opening | HandshakeRefusal:
        """Accept or refuse; takes at most `HANDSHAKE_DEADLINE_S`."""
        origins = request.values("origin")
        if not self.origins.is_allowed(origins):
            return HandshakeRefusal(403, "Origin is not allowed")
        try:
            fields = _query_fields(request.query_string)
            version = SerializerVersion(fields.get("vsn", SerializerVersion.V1))
        except ValueError:
            return HandshakeRefusal(403, None)
        headers = (*request.values("x-api-key"), fields.get("apikey"), *request.values("apikey"))
        api_key = next(filter(None, headers), None)
        if not api_key:
            return HandshakeRefusal(401, handshake_text(api_key_missing()))
        identity = await self._identify(api_key)
        if isinstance(identity, HandshakeRefusal):
            return identity
        is_browser = bool(origins)
        if is_browser and identity.role == SERVICE_ROLE:
            return HandshakeRefusal(403, "The service_role key must not be used from a browser")
        return Opening(version, identity, api_key, is_browser)

    async def _identify(self, api_key: str) -> Identity | HandshakeRefusal:
        """Ask who shows the key."""
        try:
            async with asyncio.timeout(HANDSHAKE_DEADLINE_S):
                return await self.authenticator.identify(api_key)
        except TokenError as error:
            return HandshakeRefusal(401, handshake_text(error))
        except (UnavailableError, TimeoutError):
            return HandshakeRefusal(500, "Error connecting to Realtime")


def _query_fields(query_string: str) -> dict[str, str]:
    """Return each parameter's first value.

    Raises:
        ValueError: If there are too many.
    """
    fields = parse_qsl(query_string, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    return dict(reversed(fields))


def accept_value(request: HandshakeRequest) -> str | HandshakeRefusal:
    """Check the upgrade headers (RFC 6455 section 4.2.1).

    Returns:
        The value for ``Sec-WebSocket-Accept``, or why not.
    """
    tokens = [
        token.strip().lower()
        for value in request.values("connection")
        for token in value.split(",")
    ]
    upgrades = [value.lower() for value in request.values("upgrade")]
    if "upgrade" not in tokens or upgrades != ["websocket"]:
        return HandshakeRefusal(426, "This address speaks WebSocket only")
    if request.values("sec-websocket-version") != ["13"]:
        return HandshakeRefusal(426, "WebSocket version 13 is needed")
    keys = request.values("sec-websocket-key")
    try:
        is_valid = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        is_valid = False
    if not is_valid:
        return HandshakeRefusal(400, "Sec-WebSocket-Key is missing or malformed")
    digest = hashlib.sha1(keys[0].encode() + _ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
