"""`examples/staff_orders.py` runs as it stands, with the official client, and prints changes."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

EXAMPLE = Path(__file__).parents[3] / "examples" / "staff_orders.py"
ROW = {"order_number": "PED-001001", "status": "pending", "branch_id": "b"}


def message(topic: str, event: str, payload: object, ref: str | None = None) -> str:
    return json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref})


async def be_a_server(socket: ServerConnection) -> None:
    """Speak serializer 1.0.0 with one client: answer its join, send it two changes."""
    with contextlib.suppress(ConnectionClosed):
        await answer_joins(socket)


async def answer_joins(socket: ServerConnection) -> None:
    while True:
        request = json.loads(await socket.recv())
        if request["event"] != "phx_join":
            continue
        topic, ref = request["topic"], request["ref"]
        [binding] = request["payload"]["config"]["postgres_changes"]
        assert (binding["event"], binding["table"]) == ("*", "orders")
        response = {"postgres_changes": [{**binding, "id": 1}]}
        await socket.send(message(topic, "phx_reply", {"status": "ok", "response": response}, ref))
        for change in ({"type": "INSERT", "record": ROW}, {"type": "DELETE", "old_record": ROW}):
            described = {"schema": "public", "table": "orders", "columns": [], "errors": None}
            when = {"commit_timestamp": "2026-11-10T14:03:22.123Z"}
            payload = {"ids": [1], "data": {**described, **when, **change}}
            await socket.send(message(topic, "postgres_changes", payload))


def test_the_example_has_at_most_15_lines_of_code():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) <= 15


@pytest.mark.asyncio
async def test_the_example_prints_changes():
    async with serve(be_a_server, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(EXAMPLE)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SUPABASE_URL": url, "STAFF_TOKEN": "a.b.c"},
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
        finally:
            process.kill()
            await process.communicate()
    assert [line[-3:] for line in lines[1:]] == [["PED-001001", "pending", "b"]] * 2
    assert [line[0] for line in lines[1:]] == ["insert", "delete"]
    assert lines[0] == ["subscribed"]
