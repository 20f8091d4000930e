"""The judging login becomes the roles of tokens and nothing else (visibility.md §4, S19)."""

import psycopg
import pytest
from psycopg import sql

from heliograph.config import JUDGE_LOGIN
from heliograph.errors import ConfigurationError
from heliograph.postgres.judge_login import (
    ensure_judge_login,
    require_safe_login,
    verify_judge_login,
)
from heliograph.postgres.migrate import migrate

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

ROLES = ("anon", "authenticated", "service_role")


async def test_the_login_becomes_its_roles_and_nothing_else(rolefree_url, connect):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute("create role branch_manager nologin")
        logins = await ensure_judge_login(connection, "pässword", (*ROLES, "branch_manager"))
    assert logins.service is None
    assert logins.judge.roles == ("anon", "authenticated", "branch_manager")
    async with connect(logins.judge.conninfo) as judge:
        for role in logins.judge.roles:
            await judge.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            await judge.execute("reset role")
        for role in ("service_role", "authenticator", "postgres", "pg_read_all_data"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await judge.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await judge.execute("create temp table t (i int); insert into t values (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await judge.execute("select secret from heliograph.server_secret")


async def test_a_policy_function_that_changes_the_role_reaches_only_the_listed_roles(
    rolefree_url, connect
):
    # Measured before: set_config('role', …) inside a policy reached the login role.
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        logins = await ensure_judge_login(connection, "secret", ROLES)
    async with connect(logins.judge.conninfo) as judge:
        await judge.execute("begin read only")
        await judge.execute("select set_config('role', 'anon', true)")
        for role in ("service_role", "postgres"):
            await judge.execute("savepoint s")
            with pytest.raises(psycopg.Error, match="permission denied to set role"):
                await judge.execute("select set_config('role', %s, true)", (role,))
            await judge.execute("rollback to s")
        await judge.execute("rollback")


async def test_only_a_verifier_of_the_password_reaches_the_server(rolefree_url, connect):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        logins = await ensure_judge_login(connection, "correct horse battery", ROLES)
        cursor = await connection.execute(
            "select rolpassword, rolconnlimit from pg_authid where rolname = %s", (JUDGE_LOGIN,)
        )
        verifier, limit = await cursor.fetchone()
    assert verifier.startswith("SCRAM-SHA-256$")
    assert limit > 0
    assert "correct horse battery" not in repr(logins)
    assert "correct horse battery" in logins.judge.conninfo


async def test_making_it_again_corrects_attributes_and_memberships(rolefree_url, connect):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await ensure_judge_login(connection, "one", ROLES)
        await connection.execute(
            "alter role heliograph_judge bypassrls createrole inherit;"
            "grant service_role, pg_monitor to heliograph_judge"
        )
        findings = await verify_judge_login(connection, JUDGE_LOGIN, ("anon", "authenticated"))
        assert "role heliograph_judge passes row level security" in findings
        assert "role heliograph_judge can become service_role" in findings
        assert "role heliograph_judge can become pg_monitor" in findings
        await ensure_judge_login(connection, "two", ROLES)
        assert await verify_judge_login(connection, JUDGE_LOGIN, ("anon", "authenticated")) == ()


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("grant pg_read_all_data to authenticated", "can become pg_read_all_data"),
        ("create table public.mine (); alter table public.mine owner to heliograph_judge", "owns"),
        ("grant anon to heliograph_judge with admin option", "may grant anon to others"),
    ],
)
async def test_what_it_could_become_indirectly_is_found(rolefree_url, connect, statement, finding):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await ensure_judge_login(connection, "one", ROLES)
        await connection.execute(statement)
        with pytest.raises(ConfigurationError, match=finding):
            await ensure_judge_login(connection, "one", ROLES)


async def test_service_role_without_bypassrls_gets_a_login_of_its_own(rolefree_url, connect):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute("alter role service_role nobypassrls")
        logins = await ensure_judge_login(connection, "one", ROLES)
        assert logins.service is not None
        assert logins.service.roles == ("service_role",)
        assert logins.judge.roles == ("anon", "authenticated")
    async with connect(logins.service.conninfo) as judge:
        await judge.execute("set role service_role")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await judge.execute("set role anon")


async def test_a_role_that_passes_row_level_security_is_not_judged_for(rolefree_url, connect):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute("create role powerful bypassrls")
        with pytest.raises(ConfigurationError, match="powerful passes row level security"):
            await ensure_judge_login(connection, "one", (*ROLES, "powerful"))
        with pytest.raises(ConfigurationError, match="role absent does not exist"):
            await ensure_judge_login(connection, "one", (*ROLES, "absent"))


async def test_a_role_without_the_right_uses_a_safe_login_and_refuses_without_one(
    rolefree_url, connect, other_user
):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute("create role plain login")
        async with connect(other_user(rolefree_url, "plain")) as plain:
            with pytest.raises(ConfigurationError, match="CREATE ROLE heliograph_judge LOGIN"):
                await ensure_judge_login(plain, "one", ROLES)
        await ensure_judge_login(connection, "one", ROLES)
        async with connect(other_user(rolefree_url, "plain")) as plain:
            logins = await ensure_judge_login(plain, "one", ROLES)
            assert logins.judge.user == JUDGE_LOGIN


async def test_a_database_that_public_may_not_connect_to_is_opened_for_the_login(
    rolefree_url, connect
):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute(
            sql.SQL("revoke connect on database {} from public").format(
                sql.Identifier(connection.info.dbname)
            )
        )
        logins = await ensure_judge_login(connection, "one", ROLES)
    async with connect(logins.judge.conninfo) as judge:
        await judge.execute("select 1")


async def test_a_login_that_somebody_else_made_must_be_safe(rolefree_url, connect, other_user):
    async with connect(rolefree_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create role mine login noinherit; grant anon, authenticated to mine"
        )
        async with connect(other_user(rolefree_url, "mine")) as given:
            assert await require_safe_login(given, ROLES) is False
            await connection.execute("alter role service_role nobypassrls")
            assert await require_safe_login(given, ROLES) is True
            await connection.execute("grant service_role to mine")
            with pytest.raises(ConfigurationError, match="role mine can become service_role"):
                await require_safe_login(given, ROLES)
        with pytest.raises(ConfigurationError, match=r"HELIOGRAPH_JUDGE_URL.*is a superuser"):
            await require_safe_login(connection, ROLES)
