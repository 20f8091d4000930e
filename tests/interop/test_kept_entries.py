"""What a subscription keeps of what its client wrote."""

import sys
from pathlib import Path

import pytest

from fixtures.raw_client import connected

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

CHANNELS = 90


def resident_bytes(pid):
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_wildcard_keeps_nothing_that_its_client_only_wrote_down(server):
    server.sql(
        "create table notes (id int primary key)",
        "alter table notes enable row level security",
        "create policy p on notes for select using (true)",
        "alter publication supabase_realtime add table notes",
    )
    # Some 600 KB each once it is read.
    entry = {"event": "*", "schema": "public", "x": [0.5] * 20_000}
    async with connected(server) as client:
        await client.join("first", server.token("ada"), entry)
        before = resident_bytes(server.process.pid)
        for number in range(CHANNELS):
            await client.join(f"r{number}", server.token("ada"), entry)
        assert resident_bytes(server.process.pid) - before < CHANNELS * 250_000
