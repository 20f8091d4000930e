"""What only raw sockets show of the picows adapter: handshake bytes, frames that break rules."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import struct

import pytest
from picows import WSListener

from fixtures.realtime_server import PATH, running_server
from fixtures.waiting import wait_until
from heliograph.core.wire.close_codes import CLOSE_CODES
from heliograph.limits import HANDSHAKE_BYTES_MAX
from heliograph.server.connection_registry import ConnectionRegistry
from heliograph.server.outbound import Outbound, OutboundLimits
from heliograph.server.picows_websocket import PicowsLog, make_protocol

pytestmark = pytest.mark.asyncio

KEY = base64.b64encode(bytes(16)).decode()
TARGET = f"{PATH}?apikey=anon&vsn=2.0.0"
#: As Firefox writes them.
FIREFOX = {
    "Host": "127.0.0.1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Sec-WebSocket-Version": "13",
    "Origin": "https://app.example",
    "Sec-WebSocket-Extensions": "permessage-deflate",
    "Sec-WebSocket-Key": KEY,
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
}


@pytest.fixture(autouse=True)
def short_close(monkeypatch):
    monkeypatch.setattr("heliograph.server.picows_websocket.CLOSE_DEADLINE_S", 0.2)


class RawSocket:
    """Bytes to and from the server."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def request(self, target=TARGET, method="GET", **changes):
        """Send a handshake and read the answer; see `send_request`."""
        self.send_request(target, method, **changes)
        return await self.response()

    def send_request(self, target=TARGET, method="GET", *, behind=b"", **changes):
        """Send a handshake and bytes behind it; ``changes`` replace headers, None removes one."""
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        headers = {key: value for key, value in {**FIREFOX, **named}.items() if value is not None}
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + behind)

    async def response(self):
        """Return status, header text and body."""
        async with asyncio.timeout(15):
            head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        body = b""
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                body = await self.reader.readexactly(int(line.split(b":")[1]))
        return status, head.decode().lower(), body

    def send_frame(self, opcode, payload, *, fin=True, masked=True, rsv=0):
        first = (0x80 if fin else 0) | rsv | opcode
        bit = 0x80 if masked else 0
        if len(payload) < 126:
            head = bytes([first, bit | len(payload)])
        elif len(payload) < 65536:
            head = bytes([first, bit | 126]) + struct.pack("!H", len(payload))
        else:
            head = bytes([first, bit | 127]) + struct.pack("!Q", len(payload))
        mask = b"\x00\x00\x00\x00" if masked else b""
        self.writer.write(head + mask + payload)

    async def frame(self):
        """Return opcode and payload of the next frame."""
        async with asyncio.timeout(15):
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server must not mask"
            size = second
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0xF, await self.reader.readexactly(size)

    async def join(self):
        """Join a channel and wait until it is subscribed to ``orders``."""
        config = {"postgres_changes": [{"event": "*", "schema": "public", "table": "orders"}]}
        join = ["1", "1", "realtime:room", "phx_join", {"config": config}]
        self.send_frame(1, json.dumps(join).encode())
        while b"Subscribed to PostgreSQL" not in (await self.frame())[1]:
            pass

    async def close_code(self):
        """Skip to the close frame; return its code, then see the end of the stream."""
        return (await self.closed())[0]

    async def closed(self):
        """Skip to the close frame; return its code and text, then see the end of the stream."""
        while (frame := await self.frame())[0] != 8:
            pass
        # A client that is still sending when the server hangs up is reset.
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(15):
                await self.reader.read()
        return int.from_bytes(frame[1][:2], "big"), frame[1][2:].decode()


class RawConnection:
    """Connect a `RawSocket`; with ``upgraded`` the handshake is done."""

    def __init__(self, server, *, upgraded=True):
        self._address, self._upgraded = server.address, upgraded

    async def __aenter__(self):
        streams = await asyncio.open_connection(self._address.host, self._address.port)
        self._socket = RawSocket(*streams)
        if self._upgraded:
            assert (await self._socket.request())[0] == 101
        return self._socket

    async def __aexit__(self, *_exception):
        self._socket.writer.transport.abort()


HEARTBEAT = b'[null,"1","phoenix","heartbeat",{}]'


# --- The handshake --------------------------------------------------------------------------


@pytest.mark.security
async def test_a_handshake_as_firefox_writes_it_is_accepted():
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        status, head, _ = await socket.request()
        assert status == 101
        digest = hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accepted = base64.b64encode(digest).decode().lower()
        assert f"sec-websocket-accept: {accepted}\r\n" in head
        # Compression is never agreed to (S31).
        assert "extensions" not in head
        socket.send_frame(1, HEARTBEAT)
        assert json.loads((await socket.frame())[1])[1] == "1"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec_WebSocket_Version": "12"}, 426),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Key": "é"}, 400),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"target": "/elsewhere?apikey=anon"}, 404),
        ({"target": "/health/../realtime/v1/websocket?apikey=anon"}, 404),
        ({"method": "POST"}, 400),
        ({"target": PATH}, 401),
        ({"target": f"{PATH}?" + "a=1&" * 100 + "apikey=anon"}, 403),
    ],
)
async def test_a_faulty_handshake_gets_a_status_and_our_own_text(changes, status):
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        found, _, body = await socket.request(**changes)
        assert found == status
        for leak in (b"Traceback", b"Error(", b"exception", b"picows", b"File"):
            assert leak not in body


async def test_a_failure_inside_reaches_nobody():
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        target = f"{PATH}?apikey=boom:secret-of-the-server"
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await socket.request(target=target)
        assert cut.value.partial == b""


async def test_a_request_head_that_is_too_large_is_refused_with_431():
    async with running_server() as server:
        for filler in (
            {"X_Filler": "x" * (HANDSHAKE_BYTES_MAX + 1024)},
            {"target": "/" + "x" * 20_000},
        ):
            async with RawConnection(server, upgraded=False) as socket:
                status, _, body = await socket.request(**filler)
                assert status == 431
                assert json.loads(body)["error"].startswith("The request head exceeds")


async def test_a_request_head_without_an_end_is_refused_with_431():
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        socket.writer.write(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(40):
            socket.writer.write(b"x" * 1024)
        assert (await socket.response())[0] == 431


@pytest.mark.security
async def test_a_request_head_that_does_not_come_is_cut(monkeypatch):
    monkeypatch.setattr("heliograph.server.uvicorn_http.HANDSHAKE_DEADLINE_S", 0.2)
    async with running_server() as server:
        for start in (b"", b"GET / HTTP/1.1\r\nX: "):
            async with RawConnection(server, upgraded=False) as socket, asyncio.timeout(10):
                socket.writer.write(start)
                with contextlib.suppress(ConnectionResetError):
                    assert await socket.reader.read() == b""


async def test_requests_on_a_kept_connection_have_a_bound_each():
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        request = b"GET /health HTTP/1.1\r\nhost: h\r\nx: " + b"x" * 9_000 + b"\r\n\r\n"
        for _ in range(5):
            socket.writer.write(request)
            assert (await socket.response())[0] == 200
        socket.writer.write(b"nonsense\r\n\r\n")
        assert (await socket.response())[0] == 400


async def test_a_handshake_that_waits_for_keys_is_cut_when_the_server_stops():
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        server.keys.gate = asyncio.Event()
        socket.send_request()
        await wait_until(lambda: server.keys.gate._waiters)
        server.stop.request()
        async with asyncio.timeout(10):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await socket.reader.readexactly(1)


async def test_bytes_before_the_answer_end_the_connection():
    async with running_server() as server, RawConnection(server, upgraded=False) as socket:
        server.keys.gate = asyncio.Event()
        socket.send_request(behind=bytes([0x81, 0x80 | len(HEARTBEAT)]) + bytes(4) + HEARTBEAT)
        async with asyncio.timeout(10):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await socket.reader.readexactly(1)


# --- Frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(1, HEARTBEAT, {"masked": False})], 1002),
        ([(1, HEARTBEAT, {"rsv": 0x40})], 1002),
        ([(3, b"", {})], 1002),
        ([(0, b"x", {})], 1002),
        ([(1, b"x", {"fin": False}), (1, b"x", {})], 1002),
        ([(9, b"x" * 126, {})], 1002),
        ([(1, b"\xff\xfe", {})], 1007),
        ([(1, b"x" * (1024 * 1024 + 1), {})], 1009),
        ([(1, b"x" * 700_000, {"fin": False}), (0, b"x" * 700_000, {})], 1009),
        ([(1, b"", {"fin": False})] + [(0, b"", {"fin": False})] * 1024, 1009),
    ],
)
async def test_a_frame_that_breaks_the_rules_closes_with_its_code(frames, code):
    async with running_server() as server, RawConnection(server) as socket:
        for opcode, payload, options in frames:
            socket.send_frame(opcode, payload, **options)
        closed_with, reason = await socket.closed()
        assert closed_with == code
        # Our words, none of the library's exceptions.
        assert reason.startswith(("a message may ", "a text message ", "a reserved bit ", "a fra"))
        assert not any(word in reason for word in ("Received", "exceed", "0x"))
        await wait_until(lambda: server.metric("connections") == 0)
        name = next(each.name for each in CLOSE_CODES if each.number == code)
        assert server.metric("closes_total", code=str(code), reason=name) == 1


async def test_a_fragmented_message_is_put_together():
    async with running_server() as server, RawConnection(server) as socket:
        socket.send_frame(1, HEARTBEAT[:5], fin=False)
        socket.send_frame(9, b"in between")
        socket.send_frame(0, HEARTBEAT[5:])
        assert await socket.frame() == (10, b"in between")
        assert json.loads((await socket.frame())[1])[3] == "phx_reply"


async def test_a_byte_at_a_time_is_understood():
    async with running_server() as server, RawConnection(server) as socket:
        frame = bytes([0x81, 0x80 | len(HEARTBEAT)]) + bytes(4) + HEARTBEAT
        for each in frame:
            socket.writer.write(bytes([each]))
            await socket.writer.drain()
            await asyncio.sleep(0)
        assert json.loads((await socket.frame())[1])[1] == "1"


async def test_the_clients_close_is_answered_with_its_code():
    async with running_server() as server, RawConnection(server) as socket:
        socket.send_frame(8, (1000).to_bytes(2, "big") + b"bye")
        assert await socket.close_code() == 1000
        await wait_until(lambda: server.metric("closes_total", code="1000", reason="normal"))


@pytest.mark.parametrize("payload", [b"\x03", *(n.to_bytes(2, "big") for n in (0, 1006, 5000))])
async def test_a_close_code_that_is_not_allowed_is_answered_as_a_protocol_error(payload):
    async with running_server() as server, RawConnection(server) as socket:
        socket.send_frame(8, payload)
        assert await socket.closed() in {(1002, ""), (1002, "a frame breaks RFC 6455")}


async def test_a_close_reason_that_is_not_utf8_is_answered_in_our_words():
    async with running_server() as server, RawConnection(server) as socket:
        socket.send_frame(8, (1000).to_bytes(2, "big") + b"\xff")
        assert await socket.closed() == (1007, "a close reason is not UTF-8")


async def test_a_reason_that_is_too_long_is_cut_at_a_character(monkeypatch):
    opened = []

    def keep(registry, *arguments, **named):
        opened.append(named["transport"])
        return open_connection(registry, *arguments, **named)

    open_connection = ConnectionRegistry.open
    monkeypatch.setattr(ConnectionRegistry, "open", keep)
    async with running_server() as server, RawConnection(server) as socket:
        opened[0].close(1001, "é" * 100)
        _, payload = await socket.frame()
        assert payload[2:].decode() == "é" * 61


async def test_a_client_that_just_goes_is_noticed():
    async with running_server() as server:
        async with RawConnection(server) as socket:
            socket.send_frame(1, HEARTBEAT)
            await socket.frame()
        await wait_until(lambda: server.metric("closes_total", code="1006", reason="abnormal"))


async def test_a_client_that_does_not_answer_our_close_is_cut():
    async with running_server() as server, RawConnection(server):
        await wait_until(lambda: server.metric("connections") == 1)
        server.stop.request()
        await wait_until(
            lambda: server.metric("closes_total", code="1012", reason="service_restart")
        )


async def test_pings_of_a_client_that_does_not_read_do_not_pile_up():
    async with running_server() as server, RawConnection(server) as socket:
        await socket.join()
        socket.writer.transport.pause_reading()
        (subscription,) = server.subscriptions.made
        while subscription.outlet.has_room():
            subscription.send({"text": "x" * 50_000})
            await asyncio.sleep(0)
        received = server.metric("received_bytes_total")
        for _ in range(900):
            socket.send_frame(9, os.urandom(125))
        socket.send_frame(1, HEARTBEAT)
        # Behind the pings, so all of them have been looked at.
        await wait_until(lambda: server.metric("received_bytes_total") > received)
        socket.writer.transport.resume_reading()
        opcodes = []
        while b"phx_reply" not in (frame := await socket.frame())[1]:
            opcodes.append(frame[0])
        assert opcodes.count(1) > 5
        assert opcodes.count(10) == 0


async def test_a_flood_of_pings_closes():
    async with running_server() as server, RawConnection(server) as socket:
        for _ in range(3_000):
            socket.send_frame(9, b"")
        assert await socket.close_code() == 1008


async def test_a_bug_in_a_callback_closes_with_1011_and_says_nothing(monkeypatch, capsys):
    def fail(*_arguments):
        raise RuntimeError("planted-secret")

    async with running_server() as server, RawConnection(server) as socket:
        monkeypatch.setattr("heliograph.server.connection.Connection.receive_message", fail)
        socket.send_frame(1, HEARTBEAT)
        assert await socket.frame() == (8, (1011).to_bytes(2, "big"))
    assert "callback_failed" in capsys.readouterr().out


# --- Writing --------------------------------------------------------------------------------


async def test_what_the_kernel_takes_in_part_arrives_whole_and_in_order_before_the_close(
    monkeypatch,
):
    monkeypatch.setattr("heliograph.server.picows_websocket.CLOSE_DEADLINE_S", 10.0)
    async with running_server() as server, RawConnection(server) as socket:
        await socket.join()
        socket.writer.transport.pause_reading()
        (subscription,) = server.subscriptions.made
        sent = 0
        while subscription.outlet.has_room():
            # Of every size of header, and several in one write.
            for size in (10, 500, 70_000):
                subscription.send({"id": sent, "text": "x" * size})
                sent += 1
            await asyncio.sleep(0)
        assert server.metric("outbound_waiting_bytes") > 500_000
        server.stop.request()
        await wait_until(lambda: subscription.is_closed)
        socket.writer.transport.resume_reading()
        arrived = []
        while (frame := await socket.frame())[0] == 1:
            message = json.loads(frame[1])
            if message[3] == "postgres_changes":
                arrived.append(message[4]["data"]["record"]["id"])
        assert arrived == list(range(sent))
        assert frame[0] == 8
        assert int.from_bytes(frame[1][:2], "big") == 1012


async def test_the_transport_is_full_at_the_configured_mark(monkeypatch):
    marks = []

    def pause(outbound):
        marks.append(outbound.waiting_bytes())

    monkeypatch.setattr(Outbound, "pause", pause)
    limits = OutboundLimits(bytes_low=2_000_000, bytes_high=20_000_000, bytes_max=40_000_000)
    async with running_server(outbound=limits) as server, RawConnection(server) as socket:
        await socket.join()
        socket.writer.transport.pause_reading()
        (subscription,) = server.subscriptions.made
        while not marks and subscription.outlet.has_room():
            subscription.send({"text": "x" * 50_000})
            await asyncio.sleep(0)
        assert 2_000_000 < marks[0] < 2_100_000


async def test_a_line_that_is_cut_while_much_waits_ends_its_connection_only():
    async with running_server() as server, RawConnection(server) as other:
        async with RawConnection(server) as socket:
            await socket.join()
            await other.join()
            socket.writer.transport.pause_reading()
            stalled, live = server.subscriptions.made
            while stalled.outlet.has_room():
                stalled.send({"text": "x" * 50_000})
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while not stalled.is_closed:
                stalled.send({"text": "x"})
                await asyncio.sleep(0)
        live.send({"id": 7})
        assert json.loads((await other.frame())[1])[4]["data"]["record"] == {"id": 7}


# --- The constructor that is not public -----------------------------------------------------


async def test_picows_still_has_the_constructor_that_we_rely_on():
    # Not public: a new version must be looked at before the pin moves (decision 0003).
    import picows

    assert picows.__version__ == "2.3.1"
    protocol = make_protocol(WSListener(), 1_000, PicowsLog(lambda _code: None))
    assert isinstance(protocol, asyncio.BufferedProtocol)
    for name in ("connection_made", "get_buffer", "buffer_updated", "connection_lost"):
        assert callable(getattr(protocol, name))


class NeverShown:
    """Fails whoever makes text of it."""

    def __str__(self):
        raise AssertionError("formatted")

    __repr__ = __str__


async def test_picows_is_given_a_log_that_formats_nothing():
    faults = []
    log = PicowsLog(faults.append)
    assert not log.isEnabledFor(50)
    for name in ("debug", "info", "warning", "error", "log"):
        getattr(log, name)("text %s", NeverShown())
    assert faults == []
    log.error("WS parser error: %s, initiate disconnect", (1009, "some text"))
    assert faults == [1009]
