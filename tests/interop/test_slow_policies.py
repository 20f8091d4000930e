"""A policy that keeps timing out closes the channels that it is judged for, and no others."""

import psycopg
import pytest

from fixtures.raw_client import ALICE, BOB, connected, table
from heliograph import limits

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

SCHEMA = """
create table slow_users (user_id uuid primary key);
create function in_time() returns bool language plpgsql stable security definer
  set search_path = '' as $$ begin
    if exists (select from public.slow_users where user_id = auth.uid()) then
      perform pg_sleep(60);
    end if;
    return true;
  end $$;
create table notes (id int primary key);
create table quick (id int primary key);
alter table notes enable row level security;
alter table quick enable row level security;
create policy p on notes for select to authenticated using (in_time() and id > 0);
create policy p on quick for select to authenticated using (id > 0);
alter publication supabase_realtime add table notes, quick;
"""


def is_closed(client, topic):
    return any(frame[2:4] == [f"realtime:{topic}", "phx_close"] for frame in client.frames)


async def test_a_policy_that_times_out_too_often_in_a_row_closes_its_channels_only(server):
    server.sql(SCHEMA)
    most = limits.JUDGEMENT_TIMEOUTS_IN_A_ROW_MAX
    async with (
        connected(server) as client,
        connected(server) as other,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        token = server.token(BOB)
        await client.join("slow", token, table("notes"))
        # The same person on the same socket, whose changes are judged in the same lane.
        await client.join("own", token, table("quick"))
        await other.join("other", server.token(ALICE), table("notes"))

        async def write(number, is_seen):
            await sql.execute("insert into notes values (%s)", (number,))
            await client.until(is_seen)

        async def time_out(number):
            count = len(client.errors("slow"))
            await write(number, lambda: len(client.errors("slow")) > count)
            return client.errors("slow")[-1]

        await sql.execute("insert into slow_users values (%s)", (BOB,))
        for number in range(1, most):
            assert await time_out(number) == "resync: judgement_timeout"
        # One that is in time, and the count begins anew.
        await sql.execute("delete from slow_users")
        await write(most, lambda: client.changes("slow"))
        await sql.execute("insert into slow_users values (%s)", (BOB,))
        for number in range(most + 1, most * 2):
            assert await time_out(number) == "resync: judgement_timeout"
        assert not is_closed(client, "slow")
        assert await time_out(most * 2) == (
            "policy_too_slow: judging changes for this role keeps timing out"
        )
        await client.until(lambda: is_closed(client, "slow"))

        await sql.execute("insert into quick values (1)")
        await client.until(lambda: client.changes("own"))
        assert not is_closed(client, "own")
        await other.until(lambda: len(other.changes("other")) == most * 2)
        assert [c["record"]["id"] for c in other.changes("other")] == [*range(1, most * 2 + 1)]
        assert [c["record"]["id"] for c in client.changes("slow")] == [most]
        assert client.errors("own") == other.errors("other") == []
