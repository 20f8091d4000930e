"""The shell of `heliograph tail`: opens the WebSocket, keeps it, opens it again.

What the messages mean is `tail_conversation`'s business.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Never, Protocol
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from heliograph import limits
from heliograph.cli.tail_conversation import (
    Changed,
    Subscribed,
    TailConversation,
    TailEvent,
    TailRequest,
    Told,
)
from heliograph.cli.tail_rendering import escape_unprintable
from heliograph.errors import AuthorizationError, ConfigurationError, UnavailableError
from heliograph.ports.clock import Clock

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FORBIDDEN_STATUSES = frozenset({401, 403})


class TailSink(Protocol):
    """Where changes and notices go."""

    def show_change(self, content: bytes) -> None:
        """Show one change (protocol section 10.1, JSON text)."""
        ...

    def show_notice(self, text: str) -> None:
        """Show a sentence about the connection."""
        ...


class TailKeys(Protocol):
    """Who the reader is; both may differ from call to call, as tokens are renewed."""

    def api_key(self) -> str:
        """Return the key that opens the connection."""
        ...

    def token(self) -> str | None:
        """Return the user's token, good for at least two heartbeats; None to be the key itself."""
        ...


class _Refusal(msgspec.Struct):
    error: str = "no reason given"


@dataclass(slots=True)
class TailConnection:
    """Follows one subscription across as many connections as it takes.

    Attributes:
        endpoint: The WebSocket's URL, from `endpoint_of`.
        request: What is asked for.
        keys: Who asks.
        sink: Who is told.
        clock: For heartbeats.
        sleep: Waits that many seconds; tests pass their own.
    """

    endpoint: str
    request: TailRequest
    keys: TailKeys
    sink: TailSink
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _was_live: bool = False
    _wait_s: float = limits.TAIL_RECONNECT_WAIT_FIRST_S

    async def run(self) -> Never:
        """Follow until cancelled. A connection that was live once is opened again when it ends.

        Raises:
            AuthorizationError: If the server refuses the key.
            SubscriptionRefusedError: If the server refuses the subscription.
            UnavailableError: If there is no server, or it never got as far as a subscription.
            RemoteProtocolError: If the server speaks something else.
            ConfigurationError: If the address is none of a WebSocket.
        """
        while True:
            try:
                await self._follow()
            except UnavailableError as error:
                if not self._was_live:
                    raise
                self.sink.show_notice(f"{error}; trying again in {self._wait_s:g} s")
            await self.sleep(self._wait_s)
            self._wait_s = min(self._wait_s * 2, limits.TAIL_RECONNECT_WAIT_LAST_S)

    async def _follow(self) -> Never:
        # Only the network's own errors count as a lost connection: an OSError while a change is
        # shown (a broken pipe) is the sink's.
        socket = await self._open()
        # Not `async with socket`: left by an error, Ctrl-C among them, it closes with 1011.
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(socket.close)
            try:
                await self._converse(socket)
            except ConnectionClosed as error:
                message = f"the connection was closed ({_closing(error)})"
                raise UnavailableError(message) from error
            except TimeoutError as error:
                message = f"{_place(self.endpoint)} takes nothing any more"
                raise UnavailableError(message) from error

    async def _open(self) -> ClientConnection:
        api_key = self.keys.api_key()
        try:
            return await connect(
                self.endpoint,
                # In headers, because addresses end up in the logs of proxies. Supabase's gateway
                # reads the first, the Realtime server the second.
                additional_headers={"apikey": api_key, "x-api-key": api_key},
                compression=None,
                open_timeout=limits.TAIL_ANSWER_TIMEOUT_S,
                close_timeout=limits.CLOSE_DEADLINE_S,
                # The protocol has heartbeats of its own.
                ping_interval=None,
                max_size=limits.TAIL_MESSAGE_BYTES_MAX,
                proxy=None if urlsplit(self.endpoint).hostname in _LOOPBACK else True,
            )
        except InvalidStatus as error:
            raise _refused_handshake(error) from error
        except (InvalidURI, InvalidProxy) as error:
            message = f"{_place(self.endpoint)} is no address of a server"
            raise ConfigurationError(message) from error
        except InvalidHandshake as error:
            message = f"{_place(self.endpoint)} does not speak WebSocket"
            raise UnavailableError(message) from error
        except TimeoutError as error:
            message = f"{_place(self.endpoint)} does not answer in time"
            raise UnavailableError(message) from error
        except (OSError, WebSocketException) as error:
            message = f"{_place(self.endpoint)} can not be reached ({type(error).__name__})"
            raise UnavailableError(message) from error

    async def _converse(self, socket: ClientConnection) -> Never:
        conversation = TailConversation(self.request)
        token = self.keys.token()
        await _send(socket, conversation.join(token=token, now_s=self.clock.monotonic_s()))
        while True:
            remaining_s = conversation.next_deadline_s() - self.clock.monotonic_s()
            if remaining_s <= 0:
                heartbeat = conversation.tick(self.clock.monotonic_s())
                newest = self.keys.token()
                if newest is not None and newest != token:
                    token = newest
                    await _send(socket, conversation.refresh(newest))
                await _send(socket, heartbeat)
                continue
            try:
                async with asyncio.timeout(remaining_s):
                    frame = await socket.recv()
            except TimeoutError:
                continue
            event = conversation.receive(frame, self.clock.monotonic_s())
            if event is not None:
                self._show(event)

    def _show(self, event: TailEvent) -> None:
        match event:
            case Changed(content=content):
                self.sink.show_change(content)
            case Told(text=text):
                self.sink.show_notice(f"the server says: {text}")
            case Subscribed():
                self._wait_s = limits.TAIL_RECONNECT_WAIT_FIRST_S
                if self._was_live:
                    # Until positions exist (see docs/howto/demo.md) nobody can know them.
                    self.sink.show_notice("reconnected; changes in between are not shown")
                else:
                    self._was_live = True
                    self.sink.show_notice("subscribed; changes appear as they are committed")


def endpoint_of(url: str) -> str:
    """Return the WebSocket address of a server's base URL (``http``, ``https``, ``ws``, ``wss``).

    Raises:
        ConfigurationError: If it is no such URL.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        message = "the server's address must look like http://127.0.0.1:8000"
        raise ConfigurationError(message)
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/realtime/v1/websocket"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "vsn=2.0.0", ""))


async def _send(socket: ClientConnection, frame: str) -> None:
    async with asyncio.timeout(limits.TAIL_ANSWER_TIMEOUT_S):
        await socket.send(frame)


def _refused_handshake(error: InvalidStatus) -> AuthorizationError | UnavailableError:
    status = error.response.status_code
    try:
        text = msgspec.json.decode(error.response.body or b"{}", type=_Refusal).error
    except msgspec.MsgspecError:
        text = "no reason given"
    text = escape_unprintable(text)
    message = f"the server refused the connection with HTTP status {status}: {text}"
    return (
        AuthorizationError(message) if status in _FORBIDDEN_STATUSES else UnavailableError(message)
    )


def _closing(error: ConnectionClosed) -> str:
    if error.rcvd is None:
        return "without a close frame"
    reason = escape_unprintable(error.rcvd.reason)
    return f"code {error.rcvd.code}: {reason}" if reason else f"code {error.rcvd.code}"


def _place(endpoint: str) -> str:
    """Return host and port, without a password that may stand before them."""
    return urlsplit(endpoint).netloc.rpartition("@")[2]
