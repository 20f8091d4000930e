"""A position where nothing has committed yet, although this server's own key wrote it."""

from dataclasses import replace

import pytest

from fixtures.keeping import day_of, keeping, seen
from fixtures.raw_client import ALICE
from fixtures.server_process import slot_of
from heliograph.core.changelog.position import PositionCodec
from heliograph.core.replication.lsn import Lsn
from heliograph.server.continuity_file import ContinuityFile

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

NOTES = (
    "create table notes (id int primary key, owner uuid)",
    "alter table notes enable row level security",
    "create policy own on notes for select to authenticated using (owner = (select auth.uid()))",
    "grant select on notes to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes",
)


async def test_a_position_from_the_future_is_told_and_its_channel_is_live(server, tmp_path):
    record = ContinuityFile(tmp_path / "data" / "state", slot_of(server.database_url)).load()
    codec = PositionCodec(record.key)
    async with day_of(server, *NOTES) as day, keeping(server) as client:
        follower = await day.follow(client, "notes", ALICE)
        await day.settle(follower)
        told = codec.decode(follower.position)
        follower.position = codec.encode(replace(told, lsn=Lsn(told.lsn + (1 << 40))))
        await client.leave(follower.topic)
        await day.sql.execute("insert into notes values (1, %s)", (ALICE,))
        async with keeping(server) as other:
            ahead = await day.follow(other, "notes", ALICE, after=follower)
            assert ahead.reasons == ["position_in_the_future"]
            await day.sql.execute("insert into notes values (2, %s)", (ALICE,))
            await day.settle(ahead)
            assert seen(ahead) == [2]
