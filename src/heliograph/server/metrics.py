"""Prometheus metrics of one server, on a registry of its own.

Labels are words of ours: event names the protocol knows, codes, reasons. Never a topic, a table, a
role or anything else that a client or a user chooses. What is counted per frame is kept as plain
integers and read when `/metrics` is asked for.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from heliograph.ports.clock import Clock
from heliograph.server.commit_to_write import CommitToWrite
from heliograph.server.outbound import Traffic
from heliograph.server.system_clock import SystemClock

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS_SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_SECONDS_LONG: Final = (*_SECONDS_SHORT, 2.5, 5.0, 10.0, 30.0)


class _TrafficCollector(Collector):
    """Reads the totals of `Traffic` when asked."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return one family for each total."""
        traffic = self._traffic
        for name, text, value in (
            ("received_bytes", "Bytes of messages received from clients.", traffic.bytes_received),
            ("sent_bytes", "Bytes of frames handed to sockets.", traffic.bytes_sent),
            ("sent_frames", "Frames queued for clients.", traffic.frames_sent),
            ("socket_writes", "Writes; frames per write is the coalescing.", traffic.writes),
        ):
            yield CounterMetricFamily(f"heliograph_{name}", text, value=value)


class Metrics:
    """All metrics; each attribute is one family.

    Gauges whose value lives elsewhere are bound by ``gauge.set_function(…)``; see `bind_gauge`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Make every family on a fresh registry.

        Args:
            clock: For the lag of writes; the system's by default.
        """
        self.registry = CollectorRegistry()
        self.traffic = Traffic()
        self.commit_to_write = CommitToWrite(_SECONDS_LONG, clock or SystemClock())
        self.registry.register(_TrafficCollector(self.traffic))
        self.registry.register(self.commit_to_write)
        # Replication and change log.
        self.replication_lag_bytes = self._gauge(
            "replication_lag_bytes", "WAL bytes between the database's position and the reader's."
        )
        self.replication_lag_seconds = self._gauge(
            "replication_lag_seconds", "Time since the database was where the reader is now."
        )
        self.arrival_seconds = self._gauge(
            "arrival_seconds", "Age of the last transaction received when it arrived."
        )
        self.slot_retained_bytes = self._gauge(
            "slot_retained_bytes", "WAL that PostgreSQL keeps because of our slot."
        )
        self.slot_safe_wal_bytes = self._gauge(
            "slot_safe_wal_bytes",
            "WAL that may be written before our slot is lost; NaN without a limit.",
        )
        self.slots_dropped = self._gauge(
            "slots_dropped", "Times that we dropped our slot because it held back too much WAL."
        )
        self.ring_bytes = self._gauge("ring_bytes", "Bytes of transactions kept for late readers.")
        self.ring_transactions = self._gauge("ring_transactions", "Transactions kept.")
        self.ring_age_seconds = self._gauge("ring_age_seconds", "Age of the oldest one kept.")
        self.queue_depth = self._gauge("queue_depth", "Entries waiting in a queue.", "queue")
        # Subscriptions and judgement.
        self.subscriptions = self._gauge("subscriptions", "Change subscriptions that deliver.")
        self.dependencies_not_followed = self._gauge(
            "dependencies_not_followed",
            "Tables that policies read and whose changes are not seen.",
        )
        self.late_writer_tables = self._gauge(
            "late_writer_tables",
            "Tables whose positions wait for transactions that wrote before they were published.",
        )
        self.judgement_seconds = self._histogram(
            "judgement_seconds", "Time of one judging statement.", _SECONDS_LONG
        )
        self.gc_pause_seconds = self._histogram(
            "gc_pause_seconds", "Pauses of the garbage collector.", _SECONDS_SHORT
        )
        self._make_sockets()

    def _make_sockets(self) -> None:
        # Sockets and channels.
        self.connections = self._gauge("connections", "Open WebSockets.")
        self.channels = self._gauge("channels", "Joined and joining channels.")
        self.waiting_bytes = self._gauge(
            "outbound_waiting_bytes", "Bytes that clients have not taken."
        )
        self.handshakes = self._counter("handshakes", "Handshakes, by HTTP status.", "status")
        self.joins = self._counter("joins", "Joins answered: ok or the error's code.", "result")
        self.subscriptions_refused = self._counter(
            "subscriptions_refused",
            "Joins and refreshes whose change entries are not served: malformed, not_enabled (no"
            " such table for this role), not_accepted (column, operator, value), role_not_usable.",
            "reason",
        )
        self.closes = self._counter("closes", "Sockets closed.", "code", "reason")
        self.client_messages = self._counter("client_messages", "Messages of clients.", "event")
        self.malformed_messages = self._counter(
            "malformed_messages", "Messages dropped because they can not be read.", "kind"
        )
        self.ignored_messages = self._counter(
            "ignored_messages", "Messages that nothing was done with.", "reason"
        )
        self.limited = self._counter("limited", "Times a client's rate limit was reached.", "limit")

    def bind_gauge(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Have a gauge ask for its value whenever metrics are read.

        Args:
            gauge: An attribute of this class without labels.
            value: Must be quick and must not raise.
        """
        gauge.set_function(value)

    def render(self) -> bytes:
        """Return the Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"heliograph_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"heliograph_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"heliograph_{name}", text, buckets=buckets, registry=self.registry)
