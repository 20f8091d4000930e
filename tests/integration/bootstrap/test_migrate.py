"""Migrations of a database of our own: up, again, looked at, printed, run by two at once."""

import asyncio

import psycopg
import pytest

from heliograph.errors import ConfigurationError, LocalProtocolError, UnavailableError
from heliograph.postgres.migrate import (
    AttachSetting,
    MigrateOptions,
    MigrationMode,
    StepState,
    migrate,
    plan,
    print_sql,
)
from heliograph.postgres.migration_files import migrations_of

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

LABELS = tuple(migration.label for migration in migrations_of(MigrationMode.FRESH))


async def rows(connection, query, *parameters):
    return await (await connection.execute(query, parameters or None)).fetchall()


async def catalog_dump(connection):
    """Everything in the catalog that a migration could have changed, as comparable rows."""
    queries = (
        (
            "select nspname, nspowner::regrole::text, nspacl::text from pg_namespace"
            " where nspname !~ '^pg_(toast|temp)' order by 1"
        ),
        (
            "select oid::regclass::text, relowner::regrole::text, relacl::text, relreplident,"
            " relrowsecurity, relforcerowsecurity from pg_class"
            " where relnamespace::regnamespace::text !~ '^pg_' order by 1"
        ),
        (
            "select oid::regprocedure::text, prosrc, proowner::regrole::text, proacl::text"
            " from pg_proc where pronamespace::regnamespace::text !~ '^pg_'"
            " or proname = 'pg_logical_emit_message'"
            " order by 1"
        ),
        (
            "select rolname, rolsuper, rolinherit, rolcreaterole, rolcanlogin, rolbypassrls,"
            " rolreplication from pg_roles order by 1"
        ),
        (
            "select roleid::regrole::text, member::regrole::text, admin_option from pg_auth_members"
            " order by 1, 2"
        ),
        (
            "select pubname, pubowner::regrole::text, puballtables, pubviaroot from pg_publication"
            " order by 1"
        ),
        "select pubname, schemaname, tablename from pg_publication_tables order by 1, 2, 3",
        (
            "select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype,"
            " defaclacl::text from pg_default_acl order by 1, 2, 3"
        ),
        "select evtname, evtevent, evtenabled, evttags::text from pg_event_trigger order by 1",
        "select polrelid::regclass::text, polname from pg_policy order by 1, 2",
        "select tgrelid::regclass::text, tgname from pg_trigger order by 1, 2",
    )
    return [await rows(connection, query) for query in queries]


async def test_an_empty_database_gets_everything_and_a_second_run_changes_nothing(any_url, connect):
    async with connect(any_url) as connection:
        first = await migrate(connection)
        assert first.applied == LABELS
        assert first.mode is MigrationMode.FRESH
        assert first.missing == ()
        assert first.is_usable
        before = await catalog_dump(connection)
        second = await migrate(connection)
        assert second.applied == ()
        assert second.applied_before == len(LABELS)
        assert await catalog_dump(connection) == before


async def test_the_plan_says_what_would_be_done_and_does_nothing(any_url, connect):
    async with connect(any_url) as connection:
        before = await catalog_dump(connection)
        planned = await plan(connection)
        assert tuple(migration.label for migration in planned.pending) == LABELS
        assert await catalog_dump(connection) == before
        await migrate(connection)
        after = await plan(connection)
        assert after.pending == ()
        assert {step.state for step in after.steps} == {StepState.APPLIED}
        assert all(step.applied_at is not None for step in after.steps)


async def test_printed_sql_run_by_hand_leaves_nothing_to_do(any_url, connect):
    async with connect(any_url) as connection:
        await connection.execute(print_sql().encode())
        planned = await plan(connection)
        assert planned.pending == ()
        assert planned.missing == ()


async def test_four_runs_at_once_apply_each_migration_once(postgres_url, connect):
    async def run():
        async with connect(postgres_url) as connection:
            return await migrate(connection)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for _ in range(4)]
    applied = sorted(label for task in tasks for label in task.result().applied)
    assert applied == sorted(LABELS)


async def test_two_databases_of_one_cluster_migrate_at_once(
    rolefree_url, rolefree_cluster, make_database, connect
):
    urls = [rolefree_url, *(make_database(rolefree_cluster) for _ in range(2))]

    async def run(url):
        async with connect(url) as connection:
            return await migrate(connection)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(url)) for url in urls]
    assert all(task.result().is_usable for task in tasks)
    for url in urls[1:]:
        rolefree_cluster.drop_database(url)


async def test_roles_lost_by_a_restore_into_another_cluster_are_made_again(rolefree_url, connect):
    # A dump carries the ledger but no roles. Goal: the ledger is not believed about roles.
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute("revoke service_role from authenticator")
        await connection.execute("alter role service_role nobypassrls")
        report = await migrate(connection)
        assert report.applied == (
            "0003_authenticator_memberships",
            "0004_service_role_bypassrls",
        )
        (row,) = await rows(
            connection,
            "select rolbypassrls, pg_has_role('authenticator', 'service_role', 'MEMBER')"
            " from pg_roles where rolname = 'service_role'",
        )
        assert row == (True, True)


async def test_a_ledger_of_a_newer_version_is_refused(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute("insert into heliograph.migrations values (9999, 'later', 'x')")
        with pytest.raises(ConfigurationError, match=r"9999_later.*upgrade"):
            await migrate(connection)


async def test_a_migration_that_was_run_with_another_text_is_refused(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute("update heliograph.migrations set checksum = 'x' where version=2")
        with pytest.raises(ConfigurationError, match="0002_roles was run with another text"):
            await plan(connection)


async def test_a_lock_that_is_not_to_be_had_ends_the_run_in_time(postgres_url, connect):
    async with connect(postgres_url) as holder, connect(postgres_url) as connection:
        await holder.execute("select pg_advisory_lock(%s)", (0x48656C696F677261,))
        with pytest.raises(UnavailableError, match="0001_private_schema waited too long"):
            await migrate(connection, MigrateOptions(lock_timeout_s=0.05))
        await holder.execute("select pg_advisory_unlock_all()")
        assert (await migrate(connection)).applied == LABELS


async def test_a_connection_without_autocommit_is_refused(postgres_url):
    connection = await psycopg.AsyncConnection.connect(postgres_url)
    try:
        with pytest.raises(LocalProtocolError, match="autocommit"):
            await migrate(connection)
    finally:
        await connection.close()


async def test_a_superuser_named_anon_stops_the_migration(rolefree_url, connect):
    async with connect(rolefree_url) as connection:
        await connection.execute("create role anon superuser")
        with pytest.raises(ConfigurationError, match="role anon exists and is a superuser"):
            await migrate(connection)


async def test_the_mode_of_a_database_stays(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        for setting in (AttachSetting.AUTO, AttachSetting.NEVER):
            assert (await plan(connection, setting)).mode is MigrationMode.FRESH
        with pytest.raises(ConfigurationError, match="set up in mode fresh"):
            await plan(connection, AttachSetting.ALWAYS)


async def test_nothing_but_the_owner_reads_the_secret_even_after_careless_default_privileges(
    any_url, connect
):
    async with connect(any_url) as connection:
        for role in ("anon", "careless"):
            await connection.execute(
                f"do $$ begin create role {role}; exception when duplicate_object then null; end $$"
            )
        await connection.execute("alter default privileges grant all on tables to careless, public")
        await migrate(connection)
        for role in ("anon", "authenticated", "service_role", "careless"):
            cursor = await connection.execute(
                "select has_schema_privilege(%(role)s, 'heliograph', 'USAGE'),"
                " has_table_privilege(%(role)s, 'heliograph.server_secret', 'SELECT'),"
                " has_table_privilege(%(role)s, 'heliograph.migrations', 'INSERT')",
                {"role": role},
            )
            row = await cursor.fetchone()
            assert row == (False, False, False), role
        (secret,) = await rows(connection, "select secret from heliograph.server_secret")
        assert len(secret[0]) == 64


async def test_two_databases_have_two_secrets(postgres_cluster, make_database, connect):
    secrets = set()
    for _ in range(2):
        async with connect(make_database(postgres_cluster)) as connection:
            await migrate(connection)
            secrets.add((await rows(connection, "select secret from heliograph.server_secret"))[0])
    assert len(secrets) == 2
