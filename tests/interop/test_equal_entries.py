"""Two entries of one join that ask the same, on the wire."""

import json

import pytest

from fixtures.raw_client import connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


async def test_equal_entries_share_a_frame_and_leaving_with_them_ends_nothing(server):
    server.sql(
        "create table notes (id int primary key)",
        "alter publication supabase_realtime add table notes",
    )
    async with connected(server) as client:
        for topic in ("first", "second"):
            await client.join(topic, server.service_role_key, table("notes"), table("notes"))
        server.sql("insert into notes values (1)")
        await client.until(lambda: client.changes("first") and client.changes("second"))
        await client.socket.send(json.dumps(["1", "9", "realtime:first", "phx_leave", {}]))
        await client.until(lambda: any(frame[1] == "9" for frame in client.frames))
        server.sql("insert into notes values (2)")
        await client.until(lambda: len(client.changes("second")) == 2)
        assert [change["record"]["id"] for change in client.changes("first")] == [1]
    # The last one is gone, too; whoever comes next finds everything in order.
    async with connected(server) as again:
        await again.join("third", server.service_role_key, table("notes"))
        server.sql("insert into notes values (3)")
        await again.until(lambda: again.changes("third"))
    assert not [line for line in server.log() if line["event"] == "task_failed"]
