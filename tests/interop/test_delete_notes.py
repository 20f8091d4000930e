"""Who subscribes to a table without REPLICA IDENTITY FULL is told what that means for deletes."""

import pytest

from fixtures.raw_client import BOB, connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


SCHEMA = """
create table judged (id int primary key, owner uuid);
create table whole (id int primary key, owner uuid);
alter table judged enable row level security;
alter table whole enable row level security;
alter table whole replica identity full;
create policy own on judged for select to authenticated using (owner = (select auth.uid()));
create policy own on whole for select to authenticated using (owner = (select auth.uid()));
alter publication supabase_realtime add table judged, whole;
"""


@pytest.mark.security
@pytest.mark.parametrize(
    ("setting", "note"),
    [
        ("auto", "every subscriber is told the key of a deleted row of public.judged"),
        ("strict", "nobody is told of deleted rows of public.judged"),
    ],
)
async def test_a_join_says_what_happens_to_deletes_that_can_not_be_judged(
    start_server, setting, note
):
    server = start_server(HELIOGRAPH_DELETE_VISIBILITY=setting)
    server.sql(SCHEMA)
    async with connected(server) as client:
        token = server.token(BOB)
        for topic, *entries in (
            ("noted", table("judged"), table("whole")),
            ("inserts", {**table("judged"), "event": "INSERT"}),
            ("whole", table("whole")),
        ):
            told = await client.join(topic, token, *entries)
            assert told["message"] == "Subscribed to PostgreSQL"
        await client.join("service", server.service_role_key, table("judged"))
        await client.until(lambda: len(client.systems("noted")) == 2)
        (_, second) = client.systems("noted")
        assert second["status"] == "ok"
        assert second["message"].startswith(note)
        for topic in ("inserts", "whole", "service"):
            assert len(client.systems(topic)) == 1
