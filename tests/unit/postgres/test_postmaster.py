"""Reading postmaster.pid, and telling a server of the cluster from any other process."""

import os
import subprocess

import pytest

from heliograph.postgres.postmaster import (
    Postmaster,
    cluster_processes,
    live_postmaster,
    pid_file,
    read_postmaster,
    serves_cluster,
)

READY = "4711\n/data\n1790000000\n5433\n\n127.0.0.1\n  5432001  32768\nready   \n"


def test_a_complete_file_is_read(tmp_path):
    pid_file(tmp_path).write_text(READY)
    assert read_postmaster(tmp_path) == Postmaster(pid=4711, port=5433, status="ready")


@pytest.mark.parametrize("length", range(len(READY)))
def test_a_file_cut_anywhere_is_never_taken_for_a_ready_server(tmp_path, length):
    pid_file(tmp_path).write_text(READY[:length])
    postmaster = read_postmaster(tmp_path)
    if length < READY.index("ready") + len("ready"):
        assert postmaster is None or not postmaster.is_ready


@pytest.mark.parametrize("content", ["", "\n\n", "-1\n", "postgres\n", "\xff\xfe\n"])
def test_a_damaged_file_names_no_process(tmp_path, content):
    pid_file(tmp_path).write_text(content)
    assert read_postmaster(tmp_path) is None


def test_no_file_names_no_process(tmp_path):
    assert read_postmaster(tmp_path) is None
    assert live_postmaster(tmp_path) is None


def test_a_living_process_of_another_program_does_not_serve_the_cluster(tmp_path):
    pid_file(tmp_path).write_text(READY.replace("4711", str(os.getpid())))
    assert live_postmaster(tmp_path) is None


def test_a_process_that_works_in_the_folder_serves_the_cluster_until_it_ends(tmp_path):
    process = subprocess.Popen(["/bin/sleep", "30"], cwd=tmp_path)
    try:
        pid_file(tmp_path).write_text(READY.replace("4711", str(process.pid)))
        assert serves_cluster(process.pid, tmp_path)
        assert cluster_processes(tmp_path) == [process.pid]
        postmaster = live_postmaster(tmp_path)
        assert postmaster is not None
        assert postmaster.pid == process.pid
    finally:
        process.kill()
        process.wait()
    assert live_postmaster(tmp_path) is None
    assert cluster_processes(tmp_path) == []
