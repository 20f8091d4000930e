"""Starting, listening and stopping of a whole server process."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvloop
import websockets
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fixtures.realtime_server import make_parts, mounted_server, running_server
from fixtures.waiting import wait_until
from heliograph.cli.exit_codes import ExitCode
from heliograph.errors import ConfigurationError
from heliograph.server.health import ReadinessPart
from heliograph.server.uvicorn_server import (
    BoundAddress,
    ListenSettings,
    StopRequest,
    bind_socket,
    serve,
)

TESTS = Path(__file__).resolve().parents[2]

#: Prints its address when ready, and at the end the code to exit with.
PROGRAM = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from fixtures.realtime_server import make_parts
from heliograph.cli.stop_request import run_until_stopped
from heliograph.server import picows_websocket
from heliograph.server.uvicorn_server import ListenSettings, serve

picows_websocket.CLOSE_DEADLINE_S = float(sys.argv[3])

async def run(stop):
    parts, _, _ = make_parts()
    await serve(
        parts,
        ListenSettings(port=0, drain_deadline_s=float(sys.argv[2])),
        on_ready=lambda address: print(json.dumps({"url": address.url}), flush=True),
        stop=stop,
    )

print(json.dumps({"returned": asyncio.run(run_until_stopped(run))}), flush=True)
"""


@contextlib.contextmanager
def server_process(drain_deadline_s=5.0, close_deadline_s=2.0):
    """Run a server process; yield it and its address."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(TESTS), str(drain_deadline_s), str(close_deadline_s)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    ) as process:
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield process, json.loads(line)["url"].replace("http", "ws")
                    break
        finally:
            process.kill()


def returned(process):
    """Return the code that the program was told to exit with, and the one of its process."""
    output, _ = process.communicate(timeout=15)
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(line)["returned"], process.returncode


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, ExitCode.DONE), (signal.SIGINT, ExitCode.INTERRUPTED)],
)
def test_a_signal_drains_and_the_process_ends_by_itself(number, code):
    async def watch(process, url):
        async with websockets.connect(f"{url}/socket/websocket?apikey=anon&vsn=2.0.0") as client:
            await client.send('["1","1","realtime:a","phx_join",{"config":{}}]')
            await client.recv()
            process.send_signal(number)
            async with asyncio.timeout(10):
                message = json.loads(await client.recv())
                assert message[4]["message"] == "Server requested disconnect"
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await client.recv()
            assert closed.value.rcvd.code == 1012

    with server_process() as (process, url):
        asyncio.run(watch(process, url))
        assert returned(process) == (code, 0)


def test_a_second_signal_does_not_wait_for_the_sockets():
    async def watch(process, url):
        address = url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(address[0], int(address[1]))
        request = (
            "GET /socket/websocket?apikey=anon HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\n"
            "connection: upgrade\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        writer.write(request.encode())
        await reader.readuntil(b"\r\n\r\n")
        process.send_signal(signal.SIGTERM)
        # Its close frame; it is not answered.
        await reader.readexactly(2)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
        writer.transport.abort()

    with server_process(drain_deadline_s=60, close_deadline_s=60) as (process, url):
        asyncio.run(watch(process, url))
        assert returned(process) == (ExitCode.DONE, 0)


@pytest.mark.asyncio
async def test_after_a_stop_nothing_is_accepted():
    async with running_server() as server:
        address = server.address
        server.stop.request()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection(address.host, address.port)


def test_the_default_address_is_this_machine_only():
    assert ListenSettings().host == "127.0.0.1"


def test_an_address_that_is_taken_or_unknown_is_a_configuration_error():
    with contextlib.closing(bind_socket(ListenSettings(port=0))) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}: Address already in use"):
            bind_socket(ListenSettings(port=port))
    with pytest.raises(ConfigurationError, match=r"can not listen on no-such-host\.invalid"):
        bind_socket(ListenSettings(host="no-such-host.invalid"))


def test_an_ipv6_address_is_written_in_brackets():
    assert BoundAddress("::1", 80).url == "http://[::1]:80"
    if socket.has_ipv6:
        with (
            contextlib.suppress(ConfigurationError),
            contextlib.closing(bind_socket(ListenSettings(host="::1", port=0))) as bound,
        ):
            assert bound.family == socket.AF_INET6


@pytest.mark.asyncio
async def test_health_readiness_metrics_and_further_routes_are_served():
    problems = {"database": None, "reader": "the slot is held by another server"}

    async def hello(_request: Request):
        return PlainTextResponse("hello")

    parts = {
        "readiness": [ReadinessPart(name, lambda name=name: problems[name]) for name in problems],
        "routes": [Route("/hello", hello)],
    }
    async with running_server(**parts) as server, httpx.AsyncClient() as http:
        url = server.address.url
        assert (await http.get(url + "/health")).json() == {"status": "ok"}
        response = await http.get(url + "/ready")
        assert response.status_code == 503
        assert response.json() == {
            "status": "not_ready",
            "parts": {
                "database": {"ready": True, "problem": None},
                "reader": {"ready": False, "problem": "the slot is held by another server"},
                "server": {"ready": True, "problem": None},
            },
        }
        problems["reader"] = None
        response = await http.get(url + "/ready")
        assert (response.status_code, response.json()["status"]) == (200, "ready")
        metrics = await http.get(url + "/metrics")
        assert "heliograph_connections 0.0" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await http.get(url + "/hello")).text == "hello"
        assert (await http.get(url + "/nowhere")).status_code == 404
        assert "server" not in metrics.headers


@pytest.mark.asyncio
async def test_a_server_that_drains_is_not_ready():
    async with mounted_server() as server, httpx.AsyncClient() as http:
        async with websockets.connect(server.ws_url()) as client:
            # It does not answer the close frame, so the drain waits for it.
            client.transport.pause_reading()
            server.stop.request()
            await asyncio.sleep(0)
            response = await http.get(server.address.url + "/ready")
            client.transport.resume_reading()
        assert response.status_code == 503
        assert response.json()["parts"]["server"] == {
            "ready": False,
            "problem": "the server is stopping",
        }


def test_it_runs_on_uvloop_too():
    async def scenario():
        async with running_server() as server:
            async with websockets.connect(server.ws_url()) as client:
                await client.send(
                    '["1","1","realtime:a","phx_join",'
                    '{"config":{"postgres_changes":[{"table":"orders"}]}}]'
                )
                await client.recv()
                await client.recv()
                for number in range(2_000):
                    server.subscriptions.made[0].send({"id": number, "text": "x" * 1000})
                for number in range(2_000):
                    change = json.loads(await client.recv())
                    assert change[4]["data"]["record"]["id"] == number
            await wait_until(lambda: server.subscriptions.made[0].is_closed)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


@pytest.mark.asyncio
async def test_stopping_twice_is_fine_and_keeps_the_first_reason():
    stop = StopRequest()
    stop.request(15)
    stop.request(2)
    assert stop.signal_number == 15
    parts, _, _ = make_parts()
    ready = []
    async with asyncio.timeout(10):
        found = await serve(parts, ListenSettings(port=0), on_ready=ready.append, stop=stop)
    assert found == 15
