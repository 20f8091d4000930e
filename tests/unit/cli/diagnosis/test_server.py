"""A server at an address: who is there, is it ready, do its clients leak."""

import httpx
import pytest

from heliograph.cli.diagnosis.check import CheckName
from heliograph.cli.diagnosis.server import Listener, ServerFacts, judge_server
from heliograph.cli.diagnosis.server_visit import address_of, is_server_url, visit_server
from heliograph.config import Settings
from heliograph.limits import DOCTOR_ANSWER_BYTES_MAX
from heliograph.server.metrics import Metrics

URL = "http://127.0.0.1:8000"
READY = {"status": "ready", "parts": {"database": {"ready": True, "problem": None}}}


class Clock:
    def monotonic_s(self):
        return 0.0

    def unix_s(self):
        return 784_111_777.0


def judged(listener, *, was_named=False, **facts):
    checks = judge_server(ServerFacts(url=URL, listener=listener, **facts), was_named=was_named)
    return {check.name: check for check in checks}


@pytest.mark.parametrize(
    ("listener", "was_named", "status"),
    [
        (Listener.NOBODY, False, "ok"),
        (Listener.NOBODY, True, "fail"),
        (Listener.SILENT, False, "fail"),
        (Listener.OTHER, False, "fail"),
        (Listener.OURS, True, "ok"),
    ],
)
def test_who_listens_decides(listener, was_named, status):
    found = judged(listener, was_named=was_named, parts={})
    assert found[CheckName.SERVER_PORT].status == status
    if listener is not Listener.OURS:
        assert found[CheckName.SERVER_READY].status == "skip"


def test_a_part_that_is_not_ready_is_named():
    check = judged(Listener.OURS, parts={"database": None, "reader": "starting"})
    assert check[CheckName.SERVER_READY].status == "fail"
    assert check[CheckName.SERVER_READY].detail == "reader: starting"


@pytest.mark.parametrize(
    ("sockets", "channels", "status", "text"),
    [
        (0, 0, "ok", "0 channels"),
        (10, 200, "ok", "200 channels"),
        (10, 201, "warn", "never leave"),
        (19, 0, "ok", "19 sockets"),
        (20, 9, "warn", "no channel"),
        (20, 10, "ok", "10 channels"),
    ],
)
def test_channels_and_sockets_out_of_proportion_are_told(sockets, channels, status, text):
    metrics = {"heliograph_connections": sockets, "heliograph_channels": channels}
    check = judged(Listener.OURS, parts={}, metrics=metrics)[CheckName.SERVER_CHANNELS]
    assert check.status == status
    assert text in check.detail


def test_clients_closed_as_slow_are_counted():
    metrics = {
        'heliograph_closes_total{code="3008",reason="slow_consumer"}': 2.0,
        'heliograph_closes_total{code="1000",reason="normal"}': 9.0,
    }
    check = judged(Listener.OURS, parts={}, metrics=metrics)[CheckName.SERVER_SLOW_CLIENTS]
    assert (check.status, check.detail[:9]) == ("warn", "2 clients")


def test_a_server_that_keeps_its_metrics_to_itself_is_no_fault():
    found = judged(Listener.OURS, parts={}, metrics=None)
    assert found[CheckName.SERVER_CHANNELS].status == "skip"


async def visit(answer):
    return await visit_server(URL, Clock(), transport=httpx.MockTransport(answer))


def our_server(request):
    answers = {
        "/health": httpx.Response(
            200, json={"status": "ok"}, headers={"date": "Sun, 06 Nov 1994 08:49:37 GMT"}
        ),
        "/ready": httpx.Response(503, json=READY),
        "/metrics": httpx.Response(200, content=_metrics()),
    }
    return answers[request.url.path]


def _metrics():
    metrics = Metrics(Clock())
    metrics.connections.set(3)
    metrics.closes.labels(3008, "slow_consumer").inc(2)
    return metrics.render()


@pytest.mark.asyncio
async def test_our_server_is_known_by_its_answers():
    facts, reading = await visit(our_server)
    assert facts.listener is Listener.OURS
    assert facts.parts == {"database": None}
    assert facts.metrics is not None
    assert facts.metrics["heliograph_connections"] == 3
    assert reading is not None
    assert reading.ahead_s == 0
    found = {check.name: check for check in judge_server(facts, was_named=True)}
    assert found[CheckName.SERVER_SLOW_CLIENTS].status == "warn"


def _raising(error):
    def answer(_request):
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "listener"),
    [
        (lambda _: httpx.Response(200, content=b"<h1>hello</h1>"), Listener.OTHER),
        (lambda _: httpx.Response(200, json={"status": "ok"}), Listener.OTHER),
        (lambda _: httpx.Response(200, json=[]), Listener.OTHER),
        (lambda _: httpx.Response(302, headers={"location": "http://x"}), Listener.OTHER),
        (lambda _: httpx.Response(200, content=b"\xff" * 2 * 10**6), Listener.OTHER),
        (_raising(httpx.ConnectError("refused")), Listener.NOBODY),
        (_raising(httpx.ReadTimeout("")), Listener.SILENT),
        (_raising(httpx.ReadError("")), Listener.SILENT),
        (_raising(httpx.RemoteProtocolError("no HTTP")), Listener.OTHER),
    ],
)
@pytest.mark.asyncio
async def test_whatever_answers_nothing_raises(answer, listener):
    facts, _ = await visit(answer)
    assert facts.listener is listener


@pytest.mark.parametrize("content", [b"", b"\xff", b"a 1\n", b"{{", b"x" * DOCTOR_ANSWER_BYTES_MAX])
@pytest.mark.asyncio
async def test_metrics_that_are_none_of_ours_are_left_out(content):
    def answer(request):
        if request.url.path == "/metrics":
            return httpx.Response(200, content=content)
        return our_server(request)

    facts, _ = await visit(answer)
    assert facts.listener is Listener.OURS
    assert facts.metrics is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_address_follows_the_settings(host, address):
    assert address_of(Settings.from_environ({"HELIOGRAPH_HOST": host})) == address


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("http://127.0.0.1:8000", True),
        ("https://rt.example.com", True),
        ("127.0.0.1:8000", False),
        ("ftp://x", False),
        ("http://", False),
        ("http://x:99999", False),
        ("http://[::1", False),
    ],
)
def test_what_the_address_of_a_server_looks_like(text, is_one):
    assert is_server_url(text) is is_one
