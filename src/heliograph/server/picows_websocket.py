"""WebSockets by picows behind uvicorn's ``ws=`` class: the fast adapter, one port with HTTP.

uvicorn reads the HTTP request and, when it asks for an upgrade, hands the connection to what
``ws=`` names. That is `PicowsGate`: it decides about the handshake (which may wait for keys),
answers every refusal itself, and only then makes a picows protocol and feeds it a request written
by us. So none of picows' own answers, which hold exception texts, ever reaches a client, and
headers as Firefox writes them (``Connection: keep-alive, Upgrade``), which picows would refuse,
never reach picows.

The constructor of picows' protocol is not public: positional, fifteen arguments. The version is
pinned, and a test fails when it changes (`docs/decisions/0003-websocket-server.md`).

What picows finds wrong with a frame it would tell the client in the words of its exception. It
tells its log first, and there we close the socket ourselves, after which it says nothing more.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from picows import WSAutoPingStrategy, WSFrame, WSListener, WSTransport, WSUpgradeRequest, picows

from heliograph.core.channels.server_channel import Opening
from heliograph.core.wire import close_codes
from heliograph.core.wire.message_assembler import MessageAssembler
from heliograph.core.wire.websocket_frame import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_reason,
    server_frame_header,
)
from heliograph.errors import FrameError
from heliograph.limits import CLOSE_DEADLINE_S, MESSAGE_BYTES_MAX, READ_BUFFER_BYTES_INIT
from heliograph.server.connection import Connection
from heliograph.server.connection_registry import ConnectionRegistry
from heliograph.server.supervision import Supervisor
from heliograph.server.websocket_handshake import (
    WEBSOCKET_PATHS,
    HandshakeRefusal,
    HandshakeRequest,
    accept_value,
)

if TYPE_CHECKING:
    from picows import WSCloseCode
    from picows.picows import WSCloseHandshake

_log = structlog.get_logger("heliograph.picows")

#: The request that picows gets to see: always this one.
_CANONICAL_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: %b\r\n\r\n"
)


class PicowsGate(asyncio.Protocol):
    """Holds a connection between its HTTP request and the decision about it."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        supervisor: Supervisor,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """Begin before the request.

        Args:
            registry: Decides, and takes the connection.
            supervisor: Owns the tasks.
            message_bytes_max: Bytes of one message of the client.
        """
        self._registry = registry
        self._supervisor = supervisor
        self._message_bytes_max = message_bytes_max
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from uvicorn."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the request, whole, as uvicorn wrote it down.

        What a client sends before the answer breaks RFC 6455; reading is paused, so at most what
        was already read comes here a second time, and ends the connection.
        """
        if self._transport is None or self._transport.is_closing():
            return
        if not self._transport.is_reading():
            self._transport.abort()
            return
        self._transport.pause_reading()
        method, target, request = _parse_request(data)
        path, _, _ = target.partition("?")
        if path not in WEBSOCKET_PATHS:
            self._refuse(HandshakeRefusal(404, "Not found"))
        elif method != "GET":
            self._refuse(HandshakeRefusal(400, "Only GET may be upgraded"))
        elif isinstance(accept := accept_value(request), HandshakeRefusal):
            self._refuse(accept)
        else:
            abort = self._transport.abort
            deciding = self._decide(self._transport, request)
            task = self._supervisor.spawn(deciding, name="handshake", on_failure=abort)
            self._registry.track_handshake(task)

    async def _decide(self, transport: asyncio.Transport, request: HandshakeRequest) -> None:
        """Ask the registry, then answer."""
        try:
            decision = await self._registry.admit(request)
        except asyncio.CancelledError:
            transport.abort()
            raise
        if transport.is_closing():
            return
        if isinstance(decision, HandshakeRefusal):
            self._refuse(decision)
        else:
            key = request.values("sec-websocket-key")[0].encode()
            self._upgrade(transport, decision, key)

    def _refuse(self, refusal: HandshakeRefusal) -> None:
        """Answer by HTTP and close."""
        if self._transport is not None:
            is_upgrade_required = refusal.status == HTTPStatus.UPGRADE_REQUIRED
            extra = ("sec-websocket-version: 13",) if is_upgrade_required else ()
            self._transport.write(refusal.to_http(*extra))
            self._transport.close()

    def _upgrade(self, transport: asyncio.Transport, opening: Opening, key: bytes) -> None:
        """Let picows answer 101 and take the transport."""

        def open_connection(socket: "PicowsTransport") -> Connection:
            return self._registry.open(opening, transport=socket, supervisor=self._supervisor)

        listener = PicowsListener(
            open_connection, on_lost=self._registry.lost, message_bytes_max=self._message_bytes_max
        )
        log = PicowsLog(listener.receive_parser_fault)
        protocol = make_protocol(listener, self._message_bytes_max, log)
        protocol.connection_made(transport)
        # What is above the low mark stays with us, where it can be dropped.
        bytes_low = self._registry.outbound_limits.bytes_low
        transport.set_write_buffer_limits(high=bytes_low, low=bytes_low // 4)
        request = _CANONICAL_REQUEST % key
        buffer = protocol.get_buffer(-1)
        buffer[: len(request)] = request
        protocol.buffer_updated(len(request))
        transport.set_protocol(protocol)
        transport.resume_reading()


class PicowsTransport:
    """Frames to one socket; implements `server.outbound.SocketTransport`."""

    __slots__ = ("_closing", "_transport", "_websocket")

    def __init__(self, websocket: WSTransport) -> None:
        """Wrap the transport of an open socket."""
        self._websocket = websocket
        self._transport = websocket.underlying_transport
        self._closing: asyncio.TimerHandle | None = None

    def write(self, frames: bytes) -> int:
        """Write whole frames.

        By the loop's transport: a system call of our own, past it, was no faster when tried, and a
        socket's number may be somebody else's by then.
        """
        if not self._websocket.is_close_frame_sent:
            self._transport.write(frames)
        return self._transport.get_write_buffer_size()

    def buffered_bytes(self) -> int:
        """Return what the transport still holds."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; cut the line if the peer does not answer in time."""
        if not self._websocket.is_close_frame_sent:
            self._websocket.send_close(cast("WSCloseCode", code), close_reason(reason))
        if self._closing is None:
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(CLOSE_DEADLINE_S, self.abort)

    def abort(self) -> None:
        """Cut the line."""
        self._transport.abort()

    def finish(self) -> None:
        """Forget the timer: the socket is gone."""
        if self._closing is not None:
            self._closing.cancel()


class PicowsListener(WSListener):
    """One socket's events, from picows to its connection."""

    def __init__(
        self,
        open_connection: Callable[[PicowsTransport], Connection],
        *,
        on_lost: Callable[[Connection, int], None],
        message_bytes_max: int,
    ) -> None:
        """Wait for the upgrade.

        Args:
            open_connection: Makes the connection once the socket is open.
            on_lost: Told when it is gone, with the client's close code.
            message_bytes_max: Bytes of one message.
        """
        super().__init__()
        self._open_connection = open_connection
        self._on_lost = on_lost
        self._assembler = MessageAssembler(message_bytes_max)
        self._message_bytes_max = message_bytes_max
        self._socket: PicowsTransport | None = None
        self._connection: Connection | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin the connection."""
        self._socket = PicowsTransport(transport)
        self._connection = self._open_connection(self._socket)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take one frame; picows has checked mask, opcode, size and control frames."""
        connection = self._connection
        # The stub says Enum, it is an int.
        opcode = cast("int", frame.msg_type)
        if opcode == CLOSE:
            # Answers, unless it is the answer to ours (picows sends one close frame only).
            transport.send_close(cast("WSCloseCode", _close_answer(frame)))
            transport.disconnect()
        elif connection is None or transport.is_close_frame_sent:
            return
        elif opcode in {TEXT, BINARY, CONTINUATION}:
            self._receive_data(connection, opcode, frame)
        elif opcode == PING:
            self._receive_ping(connection, transport, frame)
        else:
            connection.receive_control()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Say that the socket is gone."""
        if self._connection is not None and self._socket is not None:
            self._socket.finish()
            handshake = cast("WSCloseHandshake | None", transport.close_handshake)
            # Without a close frame of the client, picows may have sent one over a bad frame.
            said = None if handshake is None else handshake.recv or handshake.sent
            code = close_codes.ABNORMAL.number if said is None else cast("int", said.code)
            self._on_lost(self._connection, code)

    def receive_parser_fault(self, code: int) -> None:
        """Close over a frame that picows will not take, before picows does.

        Args:
            code: What picows is about to close with.
        """
        if self._connection is not None:
            message = _parser_fault(code, self._message_bytes_max)
            self._connection.receive_fault(FrameError(message, close_code=code))

    def pause_writing(self) -> None:
        """Say that the transport is full."""
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Say that the transport has room."""
        if self._connection is not None:
            self._connection.resume_writing()

    def _receive_data(self, connection: Connection, opcode: int, frame: WSFrame) -> None:
        """Assemble a message."""
        try:
            message = self._assembler.receive_frame(
                opcode,
                frame.get_payload_as_bytes(),
                is_final=frame.fin,
                has_reserved_bits=frame.rsv1 or frame.rsv2 or frame.rsv3,
            )
        except FrameError as fault:
            connection.receive_fault(fault)
            return
        if message is not None:
            connection.receive_message(message)

    def _receive_ping(self, connection: Connection, transport: WSTransport, frame: WSFrame) -> None:
        """Answer a ping, unless the client does not read: pongs must not pile up either."""
        connection.receive_control()
        socket = transport.underlying_transport
        if not transport.is_close_frame_sent and socket.get_write_buffer_size() == 0:
            payload = frame.get_payload_as_bytes()
            socket.write(server_frame_header(PONG, len(payload)) + payload)


class PicowsLog:
    """What picows logs to: its chatter is dropped, our own bugs are not."""

    name = "picows"

    def __init__(self, on_parser_fault: Callable[[int], None]) -> None:
        """Begin.

        Args:
            on_parser_fault: Told the close code for a frame that breaks the rules.
        """
        self._on_parser_fault = on_parser_fault

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 (name of the standard library)
        """Say no, so that nothing is formatted."""
        return False

    def exception(self, message: str, *_values: object) -> None:
        """Log an error of one of our callbacks, with its traceback."""
        _log.error("callback_failed", where=message, exc_info=True)

    def error(self, _message: str, *values: object) -> None:
        """Take the arguments of the parser's exception, a close code and a text; drop the rest."""
        match values:
            case ((int() as code, str()),):
                self._on_parser_fault(code)
            case _:
                pass

    def _drop(self, *_values: object) -> None:
        """Drop what clients can provoke: counted elsewhere."""

    debug = info = warning = log = _drop


def make_protocol(listener: WSListener, frame_bytes_max: int, log: PicowsLog) -> Any:
    """Make the protocol of one accepted socket.

    Args:
        listener: Gets its events.
        frame_bytes_max: Bytes of one frame; a larger one is answered with 1009.
        log: Told of faults before the client is.
    """

    def factory(_request: WSUpgradeRequest) -> WSListener:
        return listener

    return cast("Any", picows).WSProtocol(
        *(None, None, False),  # host and port, path, is the client's side
        factory,
        log,
        True,  # noqa: FBT003 - disconnect when a callback raises (positional by picows)
        None,  # handshake timeout: the request is there already
        *(False, 0, 0),  # automatic ping, its idle and its reply timeout: clients beat
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # noqa: FBT003 - automatic pong: ours, bounded (positional by picows)
        frame_bytes_max,
        None,  # extra headers
        READ_BUFFER_BYTES_INIT,
    )


def _parse_request(data: bytes) -> tuple[str, str, HandshakeRequest]:
    """Read a request as uvicorn rewrites it: one line each, names in lower case."""
    request_line, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, _, rest = request_line.decode("latin-1").partition(" ")
    target = rest.rpartition(" ")[0]
    headers = [line.decode("latin-1").partition(": ") for line in lines]
    return (
        method,
        target,
        HandshakeRequest(
            target.partition("?")[2], [(name.lower(), value.strip()) for name, _, value in headers]
        ),
    )


def _parser_fault(code: int, message_bytes_max: int) -> str:
    """Return our words for a fault that picows found."""
    if code == close_codes.MESSAGE_TOO_BIG.number:
        return f"a message may have at most {message_bytes_max} bytes"
    if code == close_codes.INVALID_TEXT.number:
        return "a close reason is not UTF-8"
    return "a frame breaks RFC 6455"


def _close_answer(frame: WSFrame) -> int:
    """Return the code that answers a client's close frame: its own, unless that is not allowed."""
    number = cast("int", frame.get_close_code())
    is_without = not frame.get_payload_as_bytes()
    if is_without or close_codes.is_valid_on_the_wire(number):
        return number
    return close_codes.PROTOCOL_ERROR.number
