"""A WebSocket client that can be cut at any byte: only what came before the cut was received."""

import asyncio
import base64
import os
import socket

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA

#: Seconds after which a connection that was left alone is ended.
FROZEN_S = 20.0


class CutSocket(asyncio.Protocol):
    """Hands texts to a function as they come.

    Attributes:
        opened: Done when the handshake is answered.
        closed: Done when the connection has ended.
        budget: Bytes that may still be received; None for no bound.
        is_frozen: Whether it was left alone, still open.
    """

    def __init__(self, receive):
        self._receive = receive
        self._buffer = bytearray()
        loop = asyncio.get_running_loop()
        self.opened = loop.create_future()
        self.closed = loop.create_future()
        self.budget = None
        self.is_frozen = False
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        is_cut = self.budget is not None and len(data) >= self.budget
        if is_cut:
            data = data[: self.budget]
        elif self.budget is not None:
            self.budget -= len(data)
        self._buffer += data
        try:
            self._take()
        except Exception as error:  # noqa: BLE001 - what the run must not survive
            self.closed.set_exception(error)
            self.abort()
        if is_cut:
            self.abort()

    def connection_lost(self, exc):
        for waited in (self.opened, self.closed):
            if not waited.done():
                waited.set_result(None)

    def abort(self):
        """End the connection at once."""
        self._receive = lambda _: None
        self.transport.abort()

    def freeze(self):
        """Read no more and say nothing, as behind a network that drops everything.

        For this side it is over; the server finds out when nobody takes what it sends.
        """
        self._receive = lambda _: None
        self.is_frozen = True
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(FROZEN_S, self.transport.abort)
        if not self.closed.done():
            self.closed.set_result(None)

    def cut_after(self, size_bytes):
        """End it when so many bytes more have come."""
        self.budget = size_bytes

    def send(self, text, *, part=1.0):
        """Send a text, or only the first part of its bytes."""
        payload = text.encode()
        size = len(payload)
        head = bytes((0x80 | _TEXT, 0x80 | 126)) + size.to_bytes(2, "big")
        if size > 0xFFFF:
            head = bytes((0x80 | _TEXT, 0x80 | 127)) + size.to_bytes(8, "big")
        elif size < 126:
            head = bytes((0x80 | _TEXT, 0x80 | size))
        # The mask of a client may be any four bytes; with zeros the payload is itself.
        frame = head + b"\0\0\0\0" + payload
        self.transport.write(frame[: int(len(frame) * part)])

    def _take(self):
        buffer = self._buffer
        if not self.opened.done():
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            is_open = buffer.startswith(b"HTTP/1.1 101")
            del buffer[: end + 4]
            if not is_open:
                self.transport.abort()
                return
            self.opened.set_result(True)
        start = 0
        while (found := _frame(buffer, start)) is not None:
            opcode, payload, start = found
            if opcode == _TEXT:
                self._receive(payload)
            elif opcode == _CLOSE:
                self.transport.close()
            elif opcode == _PING:
                head = bytes((0x80 | _PONG, 0x80 | len(payload)))
                self.transport.write(head + b"\0\0\0\0" + payload)
        del buffer[:start]


def _frame(buffer, start):
    """Return opcode, payload and end of the frame that begins there; None if it is not whole."""
    if len(buffer) < start + 2:
        return None
    size, at = buffer[start + 1], start + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(buffer) < at + width:
            return None
        size, at = int.from_bytes(buffer[at : at + width], "big"), at + width
    if len(buffer) < at + size:
        return None
    return buffer[start] & 0x0F, bytes(buffer[at : at + size]), at + size


async def open_socket(port, path, receive, *, buffer_bytes=None):
    """Connect and shake hands.

    Args:
        port: On 127.0.0.1.
        path: With the key and the version in it.
        receive: Called with each text, as bytes.
        buffer_bytes: Of the operating system, for who reads slowly.

    Raises:
        OSError: Nobody listens, or the handshake was refused.
    """
    plain = socket.socket()
    plain.setblocking(False)
    if buffer_bytes is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(plain, ("127.0.0.1", port))
        _, opened = await loop.create_connection(lambda: CutSocket(receive), sock=plain)
    except BaseException:
        plain.close()
        raise
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    opened.transport.write(request.encode())
    try:
        async with asyncio.timeout(20):
            is_open = await opened.opened
    except BaseException:
        opened.abort()
        raise
    if not is_open:
        raise ConnectionResetError("the handshake was not answered")
    return opened
