"""A server that finds its slot in other hands: of its predecessor, a frozen one, open writers."""

import asyncio
import contextlib
import signal
import socket

import psycopg
import pytest

from fixtures.fault_stand import standing
from fixtures.restarted import restarted
from fixtures.resuming import following
from fixtures.server import run_server
from fixtures.server_process import read_log, slot_of
from fixtures.waiting import wait_until
from heliograph.postgres.cluster import free_port

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]


@contextlib.asynccontextmanager
async def coming(database_url, folder, **environ):
    """Begin to start a server; give its task, and what it says that it waits for."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:

        def start():
            return stack.enter_context(run_server(database_url, folder, **environ))

        def waits_for():
            log = folder / "server.log"
            said = read_log(log) if log.exists() else []
            return [line["waiting_for"] for line in said if line["event"] == "starting"]

        starting = asyncio.create_task(asyncio.to_thread(start))
        try:
            yield starting, waits_for
        finally:
            await asyncio.wait((starting,))


async def test_a_new_server_waits_for_the_old_one_and_clients_go_on_there(postgres_url, tmp_path):
    """A rolling deploy: both have the same slot and the same folder for their state."""
    state = {"HELIOGRAPH_STATE_DIR": str(tmp_path / "state")}
    async with (
        restarted(postgres_url, tmp_path, **state) as running,
        contextlib.AsyncExitStack() as later,
        standing(running, postgres_url) as stand,
    ):
        starting, waits_for = await later.enter_async_context(
            coming(postgres_url, tmp_path / "next", **state)
        )
        await wait_until(waits_for, "the new server to wait")
        await stand.goes_on()
        assert "another reader holds the lock of the slot" in waits_for()[-1]
        assert not starting.done()
        await running.end()
        running.server = await starting
        await stand.goes_on()
    assert not any(stand.reasons())
    assert {keeper.joins for keeper in stand.keepers} == {2}


async def test_a_frozen_server_is_replaced_and_harms_nobody_when_it_wakes(postgres_url, tmp_path):
    """Its walsender still holds the slot, and PostgreSQL itself would never end it."""
    state = {
        "HELIOGRAPH_STATE_DIR": str(tmp_path / "state"),
        "HELIOGRAPH_SLOT": slot_of(postgres_url),
    }
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        name = postgres_url.rsplit("/", 1)[1]
        sql.execute(f"alter database {name} set wal_sender_timeout = '1s'")
    patient = f"{postgres_url}?options=-c%20wal_sender_timeout%3D0"
    async with (
        restarted(patient, tmp_path, **state) as running,
        contextlib.AsyncExitStack() as later,
        standing(running, postgres_url) as stand,
    ):
        await stand.goes_on()
        frozen = running.server.process
        frozen.send_signal(signal.SIGSTOP)
        later.callback(frozen.send_signal, signal.SIGCONT)
        starting, waits_for = await later.enter_async_context(
            coming(postgres_url, tmp_path / "next", **state)
        )
        running.server = await starting
        assert any("another reader holds the lock" in reason for reason in waits_for())
        for keeper in stand.keepers:
            keeper.cut()
        await stand.goes_on()
        frozen.send_signal(signal.SIGCONT)
        old_log = tmp_path / "server.log"
        await wait_until(
            lambda: any(line["event"] == "source_lost" for line in read_log(old_log)),
            "the frozen server to notice",
        )
        await stand.goes_on()
    assert not any(stand.reasons())
    assert {keeper.joins for keeper in stand.keepers} == {2}


async def test_a_start_waits_for_open_writers_says_so_and_answers_nobody(postgres_url, tmp_path):
    port = free_port()

    def is_answering():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    async with (
        await psycopg.AsyncConnection.connect(postgres_url) as writer,
        coming(postgres_url, tmp_path / "first", port=port) as (starting, waits_for),
    ):
        await writer.execute("create table w (id int primary key)")
        await writer.commit()
        await writer.execute("insert into w values (1)")
        await wait_until(
            lambda: any(f"process {writer.info.backend_pid}" in said for said in waits_for()),
            "the server to say for whom it waits",
        )
        assert not starting.done()
        assert not is_answering()
        await writer.commit()
        server = await starting
        assert is_answering()
        server.sql(
            "grant select on w to service_role",
            "alter publication supabase_realtime add table w",
        )
        async with following(server) as client:
            await client.follow("w", server.service_role_key)
            server.sql("insert into w values (2)")
            await client.settled("w", 1)
            assert (client.ids("w"), client.resyncs("w")) == ([2], [])


async def test_writers_that_take_turns_do_not_keep_a_server_from_starting(postgres_url, tmp_path):
    """There is never a moment without an open transaction: the slot is made all the same."""
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        sql.execute("create table w (id int generated always as identity)")
    async with contextlib.AsyncExitStack() as writers:

        async def open_writer():
            connecting = psycopg.AsyncConnection.connect(postgres_url)
            writer = await writers.enter_async_context(await connecting)
            await writer.execute("insert into w default values")
            return writer

        present = await open_writer()
        async with coming(postgres_url, tmp_path / "first") as (starting, waits_for):

            async def is_started():
                nonlocal present
                said = len(waits_for())
                following = await open_writer()
                await present.commit()
                present = following
                await wait_until(lambda: starting.done() or len(waits_for()) > said)
                return starting.done()

            await wait_until(waits_for, "the server to wait for the first writer")
            await wait_until(is_started, "the server to start")
            assert (await starting).log()
            await present.commit()
