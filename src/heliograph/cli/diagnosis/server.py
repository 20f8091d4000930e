"""A running server: is it there, is it ours, is it ready, and do clients leak subscriptions."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, skip, warn
from heliograph.limits import DOCTOR_CHANNELS_PER_SOCKET_MAX, DOCTOR_IDLE_SOCKETS_MIN

_LEAVE: Final = (
    "leave what is not shown any more: supabase.removeChannel(channel) where the component is taken"
    " down (React: in what useEffect returns)"
)


class Listener(Enum):
    """Who answers at an address."""

    NOBODY = "nobody"
    SILENT = "silent"
    OTHER = "other"
    OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What an address answered.

    Attributes:
        url: The address.
        listener: Who is there.
        failure: What went wrong with the request; empty if nothing did.
        parts: From ``/ready``: for each part what is wrong with it, None if it works.
        metrics: Samples of ``/metrics``: by name and labels as Prometheus writes them; None if it
            did not answer.
    """

    url: str
    listener: Listener
    failure: str = ""
    parts: Mapping[str, str | None] | None = None
    metrics: Mapping[str, float] | None = None


def judge_server(facts: ServerFacts, *, was_named: bool) -> list[Check]:
    """Judge an address.

    Args:
        facts: What it answered.
        was_named: Whether ``--url`` names it, so that a server is expected there; otherwise it is
            where `serve` would listen.
    """
    port = _judge_listener(facts, was_named=was_named)
    if facts.listener is not Listener.OURS:
        text = "no server to ask"
        return [
            port,
            *[
                skip(name, text)
                for name in (
                    CheckName.SERVER_READY,
                    CheckName.SERVER_CHANNELS,
                    CheckName.SERVER_SLOW_CLIENTS,
                )
            ],
        ]
    return [port, _judge_readiness(facts), *_judge_metrics(facts.metrics)]


def _judge_listener(facts: ServerFacts, *, was_named: bool) -> Check:
    name, url = CheckName.SERVER_PORT, facts.url
    match facts.listener:
        case Listener.OURS:
            return ok(name, f"a server of Heliograph answers at {url}")
        case Listener.NOBODY if was_named:
            return fail(
                name,
                f"nothing answers at {url}: {facts.failure}",
                "start the server there (`heliograph serve`), or correct --url: scheme, host and"
                " port, as in http://127.0.0.1:8000",
            )
        case Listener.NOBODY:
            return ok(name, f"the port of {url} is free: `heliograph serve` can have it")
        case Listener.SILENT:
            return fail(
                name,
                f"something listens at {url} and does not answer: {facts.failure}",
                "if it is our server, look at its log and at its machine's load; if not, set"
                " HELIOGRAPH_PORT to another port",
            )
        case Listener.OTHER:
            return fail(
                name,
                f"another program answers at {url}",
                "set HELIOGRAPH_PORT to another port or end the other program; behind a proxy, let"
                " it pass /health and /ready, or give --url the server's own address",
            )


def _judge_readiness(facts: ServerFacts) -> Check:
    problems = {
        part: problem for part, problem in (facts.parts or {}).items() if problem is not None
    }
    if not problems:
        return ok(CheckName.SERVER_READY, f"ready: {', '.join(facts.parts or {})}")
    return fail(
        CheckName.SERVER_READY,
        "; ".join(f"{part}: {problem}" for part, problem in problems.items()),
        "the failed checks about database and slot above say what to do; the server goes on by"
        " itself once its part works again",
    )


def _judge_metrics(metrics: Mapping[str, float] | None) -> list[Check]:
    if metrics is None:
        text = "/metrics did not answer; a proxy may keep it from the public"
        return [
            skip(name, text) for name in (CheckName.SERVER_CHANNELS, CheckName.SERVER_SLOW_CLIENTS)
        ]
    sockets = metrics.get("heliograph_connections", 0)
    channels = metrics.get("heliograph_channels", 0)
    refused = _total(metrics, "heliograph_joins_total", "ChannelRateLimitReached")
    return [_judge_channels(sockets, channels, refused), _judge_slow_clients(metrics)]


def _total(metrics: Mapping[str, float], counter: str, label_value: str) -> float:
    """Return the sum of a counter's samples that have a label of this value."""
    return sum(
        value
        for sample, value in metrics.items()
        if sample.startswith(f"{counter}{{") and f'="{label_value}"' in sample
    )


def _judge_channels(sockets: float, channels: float, refused: float) -> Check:
    name = CheckName.SERVER_CHANNELS
    text = f"{channels:.0f} channels on {sockets:.0f} sockets"
    if refused:
        return warn(
            name,
            f"{text}; since the start {refused:.0f} joins were refused because their socket had"
            " too many channels",
            _LEAVE,
        )
    if sockets and channels / sockets > DOCTOR_CHANNELS_PER_SOCKET_MAX:
        return warn(
            name,
            f"{text}: {channels / sockets:.0f} each, as when pages join and never leave",
            _LEAVE,
        )
    if sockets >= DOCTOR_IDLE_SOCKETS_MIN and channels * 2 < sockets:
        return warn(
            name,
            f"{text}: more than half of the sockets have no channel",
            "make one client for each page and use it everywhere (createClient once, outside of"
            " components); sockets without a channel are closed after ten minutes",
        )
    return ok(name, text)


def _judge_slow_clients(metrics: Mapping[str, float]) -> Check:
    name = CheckName.SERVER_SLOW_CLIENTS
    closed = _total(metrics, "heliograph_closes_total", "3008")
    waiting = metrics.get("heliograph_outbound_waiting_bytes", 0)
    text = f"{closed:.0f} clients closed as slow since the start, {waiting:.0f} bytes wait for all"
    if not closed:
        return ok(name, text)
    return warn(
        name,
        text,
        "let clients subscribe to what they show: a filter, fewer columns (select), fewer tables;"
        " do slow work outside of the callback; a phone that sleeps is closed like this, too",
    )
