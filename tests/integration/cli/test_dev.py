"""`heliograph dev` from the outside: started, refused, interrupted."""

import signal
import socket

import pytest

from fixtures.serve_process import environment, spawned
from heliograph.postgres.postmaster import cluster_processes
from heliograph.postgres.process_deadline import ProcessDeadline

pytestmark = pytest.mark.postgres


def dev(folder):
    return spawned(
        environment(None), folder, "dev", "--no-demo", "--data-dir", str(folder / "data")
    )


def test_a_signal_during_the_start_leaves_no_postgresql_behind(tmp_path):
    cluster = tmp_path / "data" / "postgres"
    with dev(tmp_path) as starting:
        ProcessDeadline(60).require((cluster / "postmaster.pid").exists, "PostgreSQL to start")
        assert starting.end(signal.SIGTERM) == 0
        assert "Traceback" not in starting.log_path.read_text()
    assert cluster_processes(cluster) == []


def test_a_second_instance_and_a_taken_port_are_refused_in_words(tmp_path):
    with dev(tmp_path) as first:
        ProcessDeadline(60).require(
            lambda: "is ready on" in first.log_path.read_text(), "the first to serve"
        )
        second_place = tmp_path / "second"
        second_place.mkdir()
        arguments = ("dev", "--no-demo", "--data-dir", str(tmp_path / "data"))
        with spawned(environment(None), second_place, *arguments) as second:
            assert second.process.wait(30) == 2
            said = second.log_path.read_text()
            assert f"in use by another Heliograph (process {first.process.pid})" in said
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            arguments = ("dev", "--no-demo", "--data-dir", str(second_place / "data"))
            with spawned(environment(None), second_place, *arguments, port=port) as third:
                assert third.process.wait(60) == 2
                said = third.log_path.read_text()
                assert f"can not listen on 127.0.0.1 port {port}: Address already in use" in said
                assert "Traceback" not in said
        assert cluster_processes(second_place / "data" / "postgres") == []
