"""Delivery's numbers for ``/metrics``: read when asked for, free while nobody asks."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from heliograph.core.changelog.ring import Ring
from heliograph.ports.clock import Clock
from heliograph.server.delivery.assembly import Delivery
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.metrics import Metrics


class DeliveryCollector(Collector):
    """Reads the totals of delivery."""

    def __init__(self, delivery: Delivery) -> None:
        """Keep what to read."""
        self._delivery = delivery

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return one family for each total."""
        return delivery_families(
            self._delivery.dispatcher.counters,
            forged_messages=self._delivery.rights_messages.forged,
            failed_tasks=self._delivery.supervisor.failures,
        )


def delivery_families(
    counters: DeliveryCounters, *, forged_messages: int, failed_tasks: int
) -> Iterator[CounterMetricFamily]:
    """Return one family for each total of delivery."""
    yield from (
        _total("transactions", "Transactions received.", counters.transactions),
        _total("row_changes", "Row changes decoded for subscribers.", counters.row_changes),
        _total("changes_delivered", "Changes queued for channels.", counters.delivered),
        _total("judgements", "Judging transactions.", counters.judgements),
        _total("judged_rows", "Row versions judged by PostgreSQL.", counters.judged_rows),
        _total("undecidable_rows", "Rows that the WAL does not decide.", counters.undecidable),
        _total("catch_ups", "Channels that read from the ring.", counters.catch_ups),
        _total("resumes", "Subscriptions that went on where they were.", counters.resumes),
        _total("forged_messages", "Messages with our prefix, not by us.", forged_messages),
        _total("failed_tasks", "Tasks ended by a bug.", failed_tasks),
        _by("judgement_repeats", "Judgements asked again.", "reason", counters.repeats),
        _by("resyncs", "Channels told that changes may be missing.", "reason", counters.resyncs),
        _by(
            "row_errors",
            "Rows denied because judging raised.",
            "sqlstate_class",
            counters.row_errors,
        ),
    )


def register_delivery(metrics: Metrics, delivery: Delivery, *, ring: Ring, clock: Clock) -> None:
    """Have ``/metrics`` show delivery, ring and reader."""
    metrics.registry.register(DeliveryCollector(delivery))
    metrics.bind_gauge(metrics.ring_bytes, lambda: ring.statistics(clock.monotonic_s()).size_bytes)
    metrics.bind_gauge(
        metrics.ring_transactions, lambda: ring.statistics(clock.monotonic_s()).transactions
    )
    metrics.bind_gauge(
        metrics.ring_age_seconds, lambda: ring.statistics(clock.monotonic_s()).oldest_age_s
    )
    metrics.bind_gauge(metrics.subscriptions, lambda: float(delivery.subscriptions.channel_count))
    metrics.bind_gauge(
        metrics.dependencies_not_followed, lambda: float(len(delivery.dependencies.unfollowed))
    )
    metrics.bind_gauge(metrics.late_writer_tables, lambda: float(len(delivery.late_writers)))
    metrics.bind_gauge(metrics.arrival_seconds, lambda: delivery.inbox.arrival_lag_s)
    for queue, depth in (
        ("inbox", lambda: float(delivery.inbox.waiting)),
        ("lanes", lambda: float(delivery.dispatcher.waiting_changes())),
    ):
        metrics.queue_depth.labels(queue).set_function(depth)


def _total(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"heliograph_{name}", text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"heliograph_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
