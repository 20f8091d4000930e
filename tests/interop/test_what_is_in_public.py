"""Operators and functions in schema public, of extensions or of somebody, are not the server's."""

import asyncio
import contextlib

import psycopg
import pytest

from fixtures.raw_client import ALICE, connected, table
from fixtures.server import run_server

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio]

#: What fits our statements better than PostgreSQL's own, and tells who called it.
TRAPS = """
create table trapped (who text);
grant insert on trapped to public;
create function trap(text, text) returns bool language plpgsql as
  $$ begin insert into public.trapped values (current_user); return true; end $$;
create operator = (leftarg = text, rightarg = text, function = trap);
create function trap(oid, oid) returns bool language plpgsql as
  $$ begin insert into public.trapped values (current_user); return true; end $$;
create operator = (leftarg = oid, rightarg = oid, function = trap);
create function trap_array(smallint[], smallint[]) returns bool language plpgsql as
  $$ begin insert into public.trapped values (current_user); return true; end $$;
create operator <@ (leftarg = smallint[], rightarg = smallint[], function = trap_array);
create function format(text, name, name) returns text language plpgsql as
  $$ begin insert into public.trapped values (current_user); return 'x'; end $$;
create function concat_ws(text, bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint,
  bigint) returns text language plpgsql as
  $$ begin insert into public.trapped values (current_user); return 'x'; end $$;
create function array_remove(text[], text) returns text[] language plpgsql as
  $$ begin insert into public.trapped values (current_user); return $1; end $$;
create function unnest(int2vector) returns setof int2 language plpgsql as
  $$ begin insert into public.trapped values (current_user); end $$;
"""
NOTES = """
create table notes (id int primary key, owner uuid, tags int[]);
alter table notes enable row level security;
create policy own on notes for select using (owner = (select auth.uid()) and tags <@ array[1, 2]);
grant select on notes to authenticated;
alter publication supabase_realtime add table notes;
"""
EXTENSIONS = ("citext", "intarray", "hstore", "ltree")


async def sees_his_row(server):
    async with connected(server) as client:
        said = await client.join("n", server.token(ALICE), table("notes"))
        assert said["message"] == "Subscribed to PostgreSQL"
        server.sql(
            f"insert into notes values (1, '{ALICE}', '{{3}}'), (2, '{ALICE}', '{{1}}')",
            "alter table notes add column later text",
            f"insert into notes values (3, '{ALICE}', '{{2}}', 'x')",
        )
        await client.until(lambda: [c["record"]["id"] for c in client.changes("n")][-1:] == [3])


@pytest.mark.parametrize("reader", ["streaming", "polling"])
async def test_what_somebody_put_there_is_not_called_by_the_server(postgres_url, tmp_path, reader):
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql:
        await sql.execute(TRAPS)
        # Whoever looks in public before pg_catalog would call them.
        await sql.execute(
            "do $$ begin execute format('alter database %I set search_path = public, pg_catalog'"
            "::text, current_database()::text); end $$"
        )
    with run_server(postgres_url, tmp_path, HELIOGRAPH_READER=reader) as server:
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as sql:
            await sql.execute("set search_path = public")
            await sql.execute(NOTES)
            await sql.execute("delete from trapped")
            async with connected(server) as client:
                said = await client.join("n", server.token(ALICE), table("notes"))
                assert said["message"] == "Subscribed to PostgreSQL"
                await sql.execute(f"insert into notes values (1, '{ALICE}', '{{1}}')")
                await client.until(lambda: client.changes("n"))
            cursor = await sql.execute("select distinct who from trapped")
            assert await cursor.fetchall() == []


async def test_operators_of_extensions_do_not_stand_in_the_way(
    any_cluster, make_database, tmp_path
):
    url = make_database(any_cluster)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
        for extension in EXTENSIONS:
            with contextlib.suppress(psycopg.errors.FeatureNotSupported):
                await sql.execute(f"create extension {extension}")
    with run_server(url, tmp_path) as server:
        await asyncio.to_thread(server.sql, NOTES)
        await sees_his_row(server)
