"""Attach mode: in an existing Supabase project nothing that is not ours is altered.

The project is imitated: the roles, owners, schemas, functions and publication of a real one.
"""

import psycopg
import pytest
import pytest_asyncio

from heliograph.errors import ConfigurationError
from heliograph.postgres.migrate import AttachSetting, MigrationMode, migrate, plan

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

PROJECT = """
create role supabase_admin superuser login;
create role project login createrole replication bypassrls;
create role supabase_auth_admin login noinherit createrole;
create role anon; create role authenticated; create role service_role bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to project with admin option;
create schema auth authorization supabase_auth_admin;
grant usage on schema auth to anon, authenticated, service_role, project;
create table auth.users (id uuid primary key, email text, encrypted_password text);
alter table auth.users owner to supabase_auth_admin;
create function auth.uid() returns uuid language sql stable
  as $$ select (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid $$;
create schema realtime authorization supabase_admin;
create table realtime.messages (id int primary key);
create schema storage authorization supabase_admin;
grant create on schema public to project;
set role project;
create table public.orders (id int primary key, branch int, secret text);
alter table public.orders replica identity full;
create table public.products (id int primary key, name text, cost numeric);
create table public.prices (id int primary key, region text);
alter table public.prices replica identity full;
create table public.logs (line text);
create table public.visits (id int, day date, primary key (id, day)) partition by range (day);
create table public.visits_2026 partition of public.visits
  for values from ('2026-01-01') to ('2027-01-01');
reset role;
create table public.foreign_owner (id int primary key);
create publication supabase_realtime for table public.orders, public.products (id, name),
  public.prices where (region <> 'hidden'), public.visits, public.foreign_owner;
alter publication supabase_realtime add table public.logs;
create policy p on public.orders using (true);
create event trigger project_ddl_watch on ddl_command_end execute function public.watch();
"""

WATCH = """
create function public.watch() returns event_trigger language plpgsql as $$ begin end $$;
"""

OURS = "!~ '^heliograph'"

DUMP = (
    (
        "select nspname, nspowner::regrole::text, nspacl::text from pg_namespace"
        f" where nspname {OURS} and nspname !~ '^pg_(toast|temp)' order by 1"
    ),
    (
        "select c.oid, c.oid::regclass::text, relowner::regrole::text, relacl::text, relreplident,"
        " relrowsecurity, relforcerowsecurity, c.xmin::text from pg_class c"
        f" join pg_namespace n on n.oid = relnamespace where nspname {OURS} and nspname !~ '^pg_'"
        " order by 1"
    ),
    (
        "select a.attrelid, a.attname, a.atttypid, a.xmin::text from pg_attribute a"
        " join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
        f" where nspname {OURS} and nspname !~ '^pg_' order by 1, 2"
    ),
    (
        "select p.oid, proname, prosrc, proowner, proacl::text, p.xmin::text from pg_proc p"
        f" join pg_namespace n on n.oid = pronamespace where nspname {OURS}"
        " and nspname !~ '^pg_toast' order by 1"
    ),
    "select r.* from pg_roles r order by rolname",
    "select roleid, member, admin_option from pg_auth_members order by 1, 2",
    f"select p.* from pg_publication p where pubname {OURS} order by pubname",
    (
        "select r.* from pg_publication_rel r join pg_publication p on p.oid = prpubid"
        f" where pubname {OURS} order by r.oid"
    ),
    "select * from pg_default_acl order by oid",
    "select * from pg_event_trigger order by oid",
    "select polrelid, polname, xmin::text from pg_policy order by 1, 2",
    "select datacl::text, datdba from pg_database order by oid",
    "select * from pg_db_role_setting order by 1, 2",
)


async def dump(connection):
    return [await (await connection.execute(query)).fetchall() for query in DUMP]


@pytest_asyncio.fixture
async def project(rolefree_url, connect):
    async with connect(rolefree_url) as admin:
        await admin.execute(
            psycopg.sql.SQL("grant create on database {} to public").format(
                psycopg.sql.Identifier(admin.info.dbname)
            )
        )
        await admin.execute(WATCH)
        await admin.execute(PROJECT)
    return rolefree_url


@pytest.fixture
def project_user(other_user):
    return lambda url: other_user(url, "project")


async def test_nothing_of_the_project_is_altered(project, project_user, connect):
    async with connect(project) as admin:
        before = await dump(admin)
        async with connect(project_user(project)) as connection:
            first = await migrate(connection)
            assert first.mode is MigrationMode.ATTACH
            assert first.is_usable
            assert (await migrate(connection)).applied == ()
        assert await dump(admin) == before


async def test_nothing_of_the_project_is_altered_by_a_superuser_either(project, connect):
    async with connect(project) as admin:
        before = await dump(admin)
        report = await migrate(admin)
        assert report.mode is MigrationMode.ATTACH
        assert any("no event triggers" in note for note in report.notes)
        assert await dump(admin) == before


async def test_the_tables_of_the_project_are_taken_over_with_their_barriers(
    project, project_user, connect
):
    async with connect(project_user(project)) as connection:
        report = await migrate(connection)
        cursor = await connection.execute(
            "select tablename::text, attnames::text[], rowfilter from pg_publication_tables"
            " where pubname = 'heliograph' order by 1"
        )
        published = {name: (columns, where) for name, columns, where in await cursor.fetchall()}
    assert published["orders"] == (["id", "branch", "secret"], None)
    assert published["products"] == (["id", "name"], None)
    assert published["prices"] == (["id", "region"], "(region <> 'hidden'::text)")
    assert published.keys() == {"orders", "products", "prices", "visits"}
    left_out = "\n".join(report.notes)
    assert "public.logs was not taken over: it has no primary key" in left_out
    assert "public.foreign_owner was not taken over: it belongs to postgres" in left_out


async def test_a_project_is_recognised_and_may_not_be_treated_as_ours(project, connect):
    async with connect(project) as admin:
        assert (await plan(admin)).mode is MigrationMode.ATTACH
        with pytest.raises(ConfigurationError, match="attach=never would alter it"):
            await plan(admin, AttachSetting.NEVER)


async def test_a_database_beside_the_project_is_ours(project, rolefree_cluster, connect):
    # supabase_admin exists in the whole cluster; only the project's own database is attached.
    url = rolefree_cluster.create_database()
    try:
        async with connect(url) as admin:
            assert (await plan(admin)).mode is MigrationMode.FRESH
    finally:
        rolefree_cluster.drop_database(url)


async def test_missing_roles_of_an_attached_project_are_reported_not_made(rolefree_url, connect):
    async with connect(rolefree_url) as admin:
        report = await migrate(admin, None)
        assert report.mode is MigrationMode.FRESH
    async with connect(rolefree_url) as admin:
        await admin.execute(
            "drop schema heliograph cascade; drop publication heliograph_dependencies;"
            "drop owned by anon; drop role anon"
        )
        report = await migrate(admin)
        assert report.mode is MigrationMode.ATTACH
        assert [missing.what for missing in report.missing] == ["role anon"]
        assert not report.is_usable


async def test_a_publication_for_all_tables_is_not_copied(rolefree_url, connect):
    async with connect(rolefree_url) as admin:
        await admin.execute(
            "create role anon; create role authenticated; create role service_role;"
            "create schema auth; create table auth.users (id uuid primary key);"
            "create table t (id int primary key);"
            "create publication supabase_realtime for all tables"
        )
        report = await migrate(admin)
        assert any("FOR ALL TABLES and was not copied" in note for note in report.notes)
        cursor = await admin.execute(
            "select count(*) from pg_publication_tables where pubname = 'heliograph'"
        )
        assert await cursor.fetchone() == (0,)
