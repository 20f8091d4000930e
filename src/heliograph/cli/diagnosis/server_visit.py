"""Asking an address who is there: ``/health``, ``/ready``, ``/metrics`` and its Date header."""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from heliograph import limits
from heliograph.cli.diagnosis.clock import ClockReading
from heliograph.cli.diagnosis.server import Listener, ServerFacts
from heliograph.config import Settings
from heliograph.ports.clock import Clock

#: Addresses that mean "every interface": asked for on this machine's own.
_EVERYWHERE: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


class _Health(msgspec.Struct):
    status: str


class _Part(msgspec.Struct):
    problem: str | None = None


class _Ready(msgspec.Struct):
    parts: dict[str, _Part]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    reading: ClockReading | None


_Gathered: TypeAlias = tuple[ServerFacts, ClockReading | None]


def address_of(settings: Settings) -> str:
    """Return where `serve` would listen with these settings."""
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def is_server_url(text: str) -> bool:
    """Tell whether a text is the address of a server: http(s), host, maybe port and path."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def visit_server(
    url: str, clock: Clock, *, transport: httpx.AsyncBaseTransport | None = None
) -> _Gathered:
    """Ask an address; nothing that it answers, or does not, raises.

    Args:
        url: As `is_server_url` accepts it.
        clock: This machine's.
        transport: How to reach the address; tests give their own.

    Returns:
        What was found out, and its clock if it told the time.
    """
    base = url.rstrip("/")
    async with httpx.AsyncClient(
        follow_redirects=False,
        timeout=limits.DOCTOR_HTTP_TIMEOUT_S,
        transport=transport,
        trust_env=False,
    ) as client:
        try:
            health = await _get(client, f"{base}/health", clock)
            ready = await _get(client, f"{base}/ready", clock)
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            return ServerFacts(url=url, listener=Listener.NOBODY, failure=_words(error)), None
        except (httpx.ProtocolError, httpx.DecodingError):
            return ServerFacts(url=url, listener=Listener.OTHER), None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return ServerFacts(url=url, listener=Listener.SILENT, failure=_words(error)), None
        parts = _parts_of(health, ready)
        if parts is None:
            return ServerFacts(url=url, listener=Listener.OTHER), health.reading
        try:
            metrics = await _get(client, f"{base}/metrics", clock)
        except httpx.HTTPError:
            metrics = None
    facts = ServerFacts(
        url=url,
        listener=Listener.OURS,
        parts=parts,
        metrics=None if metrics is None else _samples_of(metrics),
    )
    return facts, health.reading


async def _get(client: httpx.AsyncClient, url: str, clock: Clock) -> _Answer:
    asked_s = clock.unix_s()
    async with client.stream("GET", url) as response:
        content = bytearray()
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > limits.DOCTOR_ANSWER_BYTES_MAX:
                break
        told_s = _date_of(response.headers.get("date"))
        reading = None if told_s is None else ClockReading(asked_s, clock.unix_s(), told_s, 1.0)
        return _Answer(response.status_code, bytes(content), reading)


def _parts_of(health: _Answer, ready: _Answer) -> dict[str, str | None] | None:
    """Return what ``/ready`` says of each part; None if it is not our server's."""
    try:
        is_ours = msgspec.json.decode(health.body, type=_Health).status == "ok"
        parts = msgspec.json.decode(ready.body, type=_Ready).parts
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return {name: part.problem for name, part in parts.items()} if is_ours else None


def _samples_of(answer: _Answer) -> dict[str, float] | None:
    try:
        families = list(text_string_to_metric_families(answer.body.decode()))
    except (ValueError, UnicodeDecodeError):
        return None
    found = {
        _sample_name(sample.name, sample.labels): sample.value
        for family in families
        for sample in family.samples
    }
    return found if "heliograph_connections" in found else None


def _sample_name(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inner}}}" if inner else name


def _date_of(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def _words(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {limits.DOCTOR_HTTP_TIMEOUT_S:g} s"
    return str(error) or type(error).__name__
