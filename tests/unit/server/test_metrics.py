from heliograph.server.metrics import Metrics


def test_two_servers_of_one_process_do_not_share_metrics():
    one, other = Metrics(), Metrics()
    one.joins.labels("ok").inc()
    assert one.registry.get_sample_value("heliograph_joins_total", {"result": "ok"}) == 1
    assert other.registry.get_sample_value("heliograph_joins_total", {"result": "ok"}) is None


def test_every_family_that_operators_need_is_there():
    text = Metrics().render().decode()
    for name in (
        *("replication_lag_bytes", "replication_lag_seconds", "slot_retained_bytes"),
        "slot_safe_wal_bytes",
        *("ring_bytes", "ring_transactions", "ring_age_seconds", "subscriptions", "channels"),
        *("connections", "judgement_seconds", "gc_pause_seconds"),
        *("queue_depth", "closes_total", "malformed_messages_total"),
        *("joins_total", "commit_to_write_seconds", "client_messages_total"),
        *("received_bytes_total", "sent_bytes_total", "sent_frames_total", "socket_writes_total"),
    ):
        assert f"# HELP heliograph_{name} " in text, name


def test_totals_and_bound_gauges_are_read_when_asked():
    metrics = Metrics()
    rows = []
    metrics.bind_gauge(metrics.ring_transactions, lambda: len(rows))
    rows.append(1)
    metrics.traffic.bytes_sent += 5
    text = metrics.render().decode()
    assert "heliograph_ring_transactions 1.0" in text
    assert "heliograph_sent_bytes_total 5.0" in text


def test_no_label_takes_a_clients_word():
    labels = {
        name
        for family in Metrics().registry._collector_to_names
        for name in getattr(family, "_labelnames", ())
    }
    assert labels == {*("queue", "reason", "status", "result", "code", "event", "kind", "limit")}
