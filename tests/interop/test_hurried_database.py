"""A database whose own timeouts are short: the server's sessions are not meant by them."""

import psycopg
import pytest

from fixtures.raw_client import ALICE, connected, table
from fixtures.server import run_server

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

ROWS = 20_000
TIMEOUTS = {
    "statement_timeout": "150ms",
    "lock_timeout": "50ms",
    "idle_session_timeout": "150ms",
    "idle_in_transaction_session_timeout": "100ms",
    "transaction_timeout": "200ms",  # new in PostgreSQL 17
}
NOTES = """
create table notes (id int primary key, owner uuid, body text);
alter table notes enable row level security;
create policy own on notes for select using (owner = (select auth.uid()));
grant select on notes to authenticated;
alter publication supabase_realtime add table notes;
"""


@pytest.mark.parametrize("reader", ["streaming", "polling"])
async def test_large_and_small_transactions_arrive_all_the_same(
    any_cluster, make_database, tmp_path, reader
):
    url = make_database(any_cluster)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
        for name, value in TIMEOUTS.items():
            if name != "transaction_timeout" or sql.info.server_version >= 170_000:
                await sql.execute(
                    f"do $$ begin execute format('alter database %I set {name} = ''{value}''',"
                    " current_database()); end $$"
                )
    with run_server(url, tmp_path, HELIOGRAPH_READER=reader) as server:
        server.sql("set statement_timeout = 0; " + NOTES)
        async with connected(server) as client:
            for topic, token in (("own", server.token(ALICE)), ("all", server.service_role_key)):
                said = await client.join(topic, token, table("notes"))
                assert said["message"] == "Subscribed to PostgreSQL"
            server.sql(
                "do $$ begin perform set_config('statement_timeout', '0', false),"
                " set_config('transaction_timeout', '0', false)"
                " from pg_settings where name = 'transaction_timeout'; end $$"
                f"; set statement_timeout = 0; insert into notes select n,"
                f" case when n % 1000 = 0 then '{ALICE}'::uuid end, repeat('x', 200)"
                f" from generate_series(1, {ROWS}) n",
                f"insert into notes values (0, '{ALICE}', 'last')",
            )
            for topic in ("own", "all"):
                await client.until(
                    lambda topic=topic: any(
                        change["record"]["id"] == 0 for change in client.changes(topic)
                    ),
                    60,
                )
                assert client.errors(topic) == []
            assert len(client.changes("all")) == ROWS + 1
            assert len(client.changes("own")) == ROWS // 1000 + 1
        assert not [line for line in server.log() if "discarding" in str(line["event"])]
