"""What a fresh database holds: auth.users, the auth functions, grants under row level security."""

import json

import psycopg
import pytest

from heliograph.postgres.migrate import migrate

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

# Name and type of each column, as application migrations for Supabase expect them.
USERS = """
aud character varying(255)
banned_until timestamp with time zone
confirmation_sent_at timestamp with time zone
confirmation_token character varying(255)
confirmed_at timestamp with time zone
created_at timestamp with time zone
deleted_at timestamp with time zone
email character varying(255)
email_change character varying(255)
email_change_confirm_status smallint
email_change_sent_at timestamp with time zone
email_change_token_current character varying(255)
email_change_token_new character varying(255)
email_confirmed_at timestamp with time zone
encrypted_password character varying(255)
id uuid
instance_id uuid
invited_at timestamp with time zone
is_anonymous boolean
is_sso_user boolean
is_super_admin boolean
last_sign_in_at timestamp with time zone
phone text
phone_change text
phone_change_sent_at timestamp with time zone
phone_change_token character varying(255)
phone_confirmed_at timestamp with time zone
raw_app_meta_data jsonb
raw_user_meta_data jsonb
reauthentication_sent_at timestamp with time zone
reauthentication_token character varying(255)
recovery_sent_at timestamp with time zone
recovery_token character varying(255)
role character varying(255)
updated_at timestamp with time zone
"""

USER = "12000000-0000-4000-8000-000000001003"


async def one(connection, query, *parameters):
    return (await (await connection.execute(query, parameters or None)).fetchone())[0]


async def test_auth_users_has_the_columns_that_applications_refer_to(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        columns = await one(
            connection,
            "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), E'\\n'"
            " order by attname) from pg_attribute"
            " where attrelid = 'auth.users'::regclass and attnum > 0",
        )
        assert columns.split("\n") == USERS.strip().split("\n")


async def test_an_application_refers_to_users_and_puts_triggers_on_them(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table profiles (id uuid primary key references auth.users (id)"
            " on delete cascade, email text);"
            "create function handle_new_user() returns trigger language plpgsql security definer"
            " set search_path = '' as $$ begin insert into public.profiles"
            " values (new.id, new.email); return new; end $$;"
            "create trigger on_auth_user_created after insert on auth.users for each row"
            " execute function handle_new_user()"
        )
        await connection.execute(
            "insert into auth.users (id, email, email_confirmed_at) values (%s, 'a@b.example',"
            " '2026-01-01Z')",
            (USER,),
        )
        assert await one(connection, "select email from profiles") == "a@b.example"
        assert await one(connection, "select confirmed_at is not null from auth.users")
        await connection.execute("delete from auth.users")
        assert await one(connection, "select count(*) from profiles") == 0


async def test_an_address_is_unique_but_for_single_sign_on(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        insert = (
            "insert into auth.users (id, email, is_sso_user) values (gen_random_uuid(), %s, %s)"
        )
        await connection.execute(insert, ("a@b.example", False))
        await connection.execute(insert, ("a@b.example", True))
        await connection.execute(insert, ("a@b.example", True))
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.execute(insert, ("a@b.example", False))


@pytest.mark.security
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_no_role_of_a_token_reads_credentials(postgres_url, connect, role):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(f"set role {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("select * from auth.users")


CLAIMS = {"sub": USER, "role": "authenticated", "email": "a@b.example", "org": {"id": 7}}


async def test_the_auth_functions_read_the_claims(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        ask = "select auth.uid()::text, auth.role(), auth.email(), auth.jwt() #>> '{org,id}'"
        await connection.execute("set role anon")
        cursor = await connection.execute(ask)
        assert await cursor.fetchone() == (None, None, None, None)
        await connection.execute(
            "select set_config('request.jwt.claims', %s, false)", (json.dumps(CLAIMS),)
        )
        cursor = await connection.execute(ask)
        assert await cursor.fetchone() == (USER, "authenticated", "a@b.example", "7")
        # the older settings, one per claim, come first
        for name, value in (("sub", USER.replace("12", "13")), ("role", "x"), ("email", "y")):
            await connection.execute(
                "select set_config(%s, %s, false)", (f"request.jwt.claim.{name}", value)
            )
        cursor = await connection.execute(ask)
        assert (await cursor.fetchone())[:3] == (USER.replace("12", "13"), "x", "y")


async def test_a_subject_that_is_no_uuid_is_an_error_of_uid_alone(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(
            "select set_config('request.jwt.claims', '{\"sub\":\"google|1\"}', false)"
        )
        assert await one(connection, "select auth.jwt() ->> 'sub'") == "google|1"
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await connection.execute("select auth.uid()")


async def test_the_auth_functions_are_stable_and_inlined(postgres_url, connect):
    # An inlined function costs nothing per row, and (select auth.uid()) runs once per statement.
    async with connect(postgres_url) as connection:
        await migrate(connection)
        volatilities = await one(
            connection,
            "select array_agg(distinct provolatile::text) from pg_proc"
            " where pronamespace = 'auth'::regnamespace",
        )
        assert volatilities == ["s"]
        await connection.execute("create table t (id uuid primary key)")
        cursor = await connection.execute("explain verbose select * from t where id = auth.uid()")
        text = "\n".join([row[0] for row in await cursor.fetchall()])
        assert "request.jwt.claims" in text
        assert "auth.uid" not in text


async def test_a_new_table_is_open_to_clients_as_far_as_its_policies_say(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table notes (id int generated always as identity primary key, owner uuid);"
            "alter table notes enable row level security;"
            "create policy own on notes to authenticated using (owner = (select auth.uid()))"
            " with check (owner = (select auth.uid()));"
            "insert into notes (owner) values (null)"
        )
        await connection.execute(
            "select set_config('request.jwt.claims', %s, false)", (json.dumps(CLAIMS),)
        )
        await connection.execute("set role authenticated")
        await connection.execute("insert into notes (owner) values (auth.uid())")
        assert await one(connection, "select count(*) from notes") == 1
        await connection.execute("set role anon")
        assert await one(connection, "select count(*) from notes") == 0
        await connection.execute("set role service_role")
        assert await one(connection, "select count(*) from notes") == 2


async def test_stored_generated_columns_are_published_where_that_can_be(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        can = connection.info.server_version >= 180000
        published = await one(
            connection,
            "select array_agg(coalesce(to_jsonb(p) ->> 'pubgencols', 'n')) from pg_publication p",
        )
        assert published == ["s" if can else "n"] * 2
