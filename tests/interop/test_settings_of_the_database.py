"""A database whose own settings are meant for its applications: timeouts, and how values look."""

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
CUSTOMS = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "bytea_output": "escape",
    "array_nulls": "off",
    "extra_float_digits": "-5",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "plan_cache_mode": "force_generic_plan",
}
NOTES = """
create table notes (id int primary key, owner uuid, body text);
alter table notes enable row level security;
create policy own on notes for select using (owner = (select auth.uid()));
grant select on notes to authenticated;
alter publication supabase_realtime add table notes;
"""


async def customize(sql, name, value):
    """Change a setting of the database, for sessions to come."""
    await sql.execute(
        f"do $$ begin execute format('alter database %I set {name} = %L', current_database(),"
        f" '{value}'); end $$"
    )


@pytest.mark.parametrize("reader", ["streaming", "polling"])
async def test_large_and_small_transactions_arrive_all_the_same(
    any_cluster, make_database, tmp_path, reader
):
    url = make_database(any_cluster)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
        for name, value in TIMEOUTS.items():
            if name != "transaction_timeout" or sql.info.server_version >= 170_000:
                await customize(sql, name, value)
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


VALUES = """
create table kinds (
  id int primary key, at timestamptz, day date, span interval, raw bytea, words text[], x float8,
  path text);
alter table kinds enable row level security;
alter table kinds replica identity full;
create policy recent on kinds for select
  using (day > '2026-01-02' and at::text like '02/03/2026%' and path = E'a\\\\b');
grant select on kinds to authenticated;
alter publication supabase_realtime add table kinds;
"""


@pytest.mark.parametrize("reader", ["streaming", "polling"])
async def test_values_look_the_same_and_policies_see_them_as_select_does(
    any_cluster, make_database, tmp_path, reader
):
    url = make_database(any_cluster)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
        for name, value in CUSTOMS.items():
            await customize(sql, name, value)
    with run_server(url, tmp_path, HELIOGRAPH_READER=reader) as server:
        server.sql(VALUES)
        async with connected(server) as client:
            said = await client.join(
                "k", server.token(ALICE), table("kinds", filter="at=gte.2026-03-01T00:00:00Z")
            )
            assert said["message"] == "Subscribed to PostgreSQL"
            server.sql(
                "insert into kinds values (1, '2026-03-02T03:04:05.5Z', '2026-02-01',"
                " '-1 days +2 hours', decode('deadbeef', 'hex'), array['a', null], 0.1,"
                r" E'a\\b')",
                "update kinds set path = null",
                "delete from kinds",
            )
            await client.until(lambda: len(client.changes("k")) == 2)
            assert client.errors("k") == []
    inserted, left = client.changes("k")
    assert inserted["record"] == {
        "id": 1,
        "at": "2026-03-02T03:04:05.5+00:00",
        "day": "2026-02-01",
        "span": "-1 days +02:00:00",
        "raw": "deadbeef",
        "words": ["a", None],
        "x": 0.1,
        "path": r"a\b",
    }
    assert (left["type"], left["old_record"]) == ("DELETE", {"id": 1})


@pytest.fixture
def latin_url(any_cluster, make_database):
    """URL of a database whose encoding has no more than Western European letters."""
    name = make_database(any_cluster).rsplit("/", 1)[1]
    with psycopg.connect(any_cluster.url(), autocommit=True) as connection:
        connection.execute(f"drop database {name}")
        connection.execute(
            f"create database {name} template template0 encoding 'LATIN1'"
            " locale_provider libc lc_collate 'C' lc_ctype 'C'"
        )
    return any_cluster.url(name)


LETTERS = """
create table "été" (id int primary key, "prénom" text, owner uuid);
alter table "été" enable row level security;
create policy "à soi" on "été" for select
  using (owner = (select auth.uid()) and "prénom" <> 'ñ');
grant select on "été" to authenticated;
alter publication supabase_realtime add table "été";
"""


@pytest.mark.parametrize("reader", ["streaming", "polling"])
async def test_a_database_in_another_encoding_is_served(latin_url, tmp_path, reader):
    with run_server(latin_url, tmp_path, HELIOGRAPH_READER=reader) as server:
        server.sql(LETTERS)
        token = server.token(ALICE)

        async def join(client, topic, token, **more):
            return (await client.join(topic, token, table("été", **more)))["message"]

        async with connected(server) as client:
            seeing = {
                "all": {},
                "equal": {"filter": "prénom=eq.é"},
                "like": {"filter": "prénom=match.^é"},
                "other": {"filter": "prénom=eq.漢"},
            }
            for topic, more in seeing.items():
                assert await join(client, topic, token, **more) == "Subscribed to PostgreSQL"
            refused = await join(client, "pattern", token, filter="prénom=match.漢")
            assert "untranslatable_character" in refused
            assert "invalid column" in await join(client, "column", token, filter="漢=eq.1")
            named = server.token(ALICE, name="漢字")
            assert "can not be assumed" in await join(client, "claims", named)
            # A policy that changes is told by a message in the database's encoding.
            server.sql(
                'alter policy "à soi" on "été" rename to "à lui"',
                f"insert into \"été\" values (1, 'ñ', '{ALICE}'), (2, 'é', '{ALICE}')",
            )
            await client.until(lambda: all(client.changes(topic) for topic in list(seeing)[:3]))
            assert {topic: len(client.changes(topic)) for topic in seeing} == {
                **dict.fromkeys(seeing, 1),
                "other": 0,
            }
            (change,) = client.changes("all")
            assert change["record"] == {"id": 2, "prénom": "é", "owner": ALICE}
