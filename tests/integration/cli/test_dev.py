"""`heliograph dev` from the outside: started, refused, interrupted."""

import signal
import socket

import psycopg
import pytest

from fixtures.serve_process import environment, spawned
from heliograph.postgres.binaries import find_binaries
from heliograph.postgres.extensions import lacking_extensions
from heliograph.postgres.postmaster import cluster_processes
from heliograph.postgres.process_deadline import ProcessDeadline

pytestmark = pytest.mark.postgres


def dev(folder, **more):
    return spawned(
        environment(None, **more), folder, "dev", "--no-demo", "--data-dir", str(folder / "data")
    )


def wait_ready(running):
    ProcessDeadline(60).require(
        lambda: "is ready on" in running.log_path.read_text(), "the server to serve"
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
        wait_ready(first)
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


def test_extensions_that_no_postgresql_here_has_are_named_before_anything_starts(tmp_path):
    with dev(tmp_path, HELIOGRAPH_EXTENSIONS="citext,made_up") as refused:
        assert refused.process.wait(30) == 2
        said = refused.log_path.read_text()
    assert "has no extension made_up, nor has any other PostgreSQL found here" in said
    assert "Traceback" not in said
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_postgresql_that_has_the_extensions_is_offered_or_taken(tmp_path):
    wheel, *others = find_binaries()
    if not lacking_extensions(["pgcrypto"], wheel):
        pytest.skip("the preferred PostgreSQL has pgcrypto")
    better = next((each for each in others if not lacking_extensions(["pgcrypto"], each)), None)
    if better is None:
        pytest.skip("no PostgreSQL of this machine has pgcrypto")
    with dev(tmp_path) as without:
        wait_ready(without)
    with dev(tmp_path, HELIOGRAPH_EXTENSIONS="pgcrypto") as refused:
        assert refused.process.wait(30) == 2
        said = refused.log_path.read_text()
    assert f"{wheel.describe()} has no extension pgcrypto; {better.describe()} in" in said
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with dev(fresh, HELIOGRAPH_EXTENSIONS="pgcrypto") as taken:
        wait_ready(taken)
        said = taken.log_path.read_text()
        url = next(word for word in said.split() if word.startswith("postgresql://"))
        with psycopg.connect(url) as connection:
            connection.execute("create extension pgcrypto")
            major = connection.info.server_version // 10_000
    assert major == better.major
