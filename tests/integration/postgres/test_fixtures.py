"""The databases that tests get: fresh, of the version they asked for, without leftovers."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from heliograph.postgres.postmaster import cluster_processes
from heliograph.postgres.process_deadline import ProcessDeadline

TESTS = Path(__file__).parents[2]
SESSION = """
import json, sys
from fixtures.postgres import binaries_of, run_test_cluster
with run_test_cluster(binaries_of(18)) as cluster:
    print(json.dumps(str(cluster.data_dir)), flush=True)
    sys.stdin.read()
"""


@pytest.mark.postgres
def test_a_database_is_empty_and_can_be_replicated(postgres_url, postgres_cluster):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert connection.info.server_version // 10000 == postgres_cluster.major == 18
        assert connection.execute("show wal_level").fetchone() == ("logical",)
        tables = connection.execute("select count(*) from pg_tables where schemaname = 'public'")
        assert tables.fetchone() == (0,)


@pytest.mark.postgres
def test_dropping_a_database_drops_its_slots(postgres_cluster):
    url = postgres_cluster.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot('left_over', 'pgoutput')")
    postgres_cluster.drop_database(url)
    with psycopg.connect(postgres_cluster.url(), autocommit=True) as connection:
        query = "select count(*) from pg_replication_slots where slot_name = 'left_over'"
        assert connection.execute(query).fetchone() == (0,)


@pytest.mark.postgres
def test_the_oldest_version_is_there(postgres_cluster_15, make_database):
    with psycopg.connect(make_database(postgres_cluster_15)) as connection:
        assert connection.info.server_version // 10000 == 15


@pytest.mark.postgres
def test_version_16_is_there(postgres_cluster_16, make_database):
    with psycopg.connect(make_database(postgres_cluster_16)) as connection:
        assert connection.info.server_version // 10000 == 16


@pytest.mark.postgres
@pytest.mark.fault
def test_no_server_outlives_a_test_session_that_is_killed():
    command = [sys.executable, "-c", SESSION]
    with subprocess.Popen(
        command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        data_dir = Path(json.loads(session.stdout.readline()))
        assert cluster_processes(data_dir)
        session.kill()
    deadline = ProcessDeadline(20)
    deadline.require(lambda: not cluster_processes(data_dir), "the server to end")
    deadline.require(lambda: not data_dir.parent.exists(), "its files to be removed")
