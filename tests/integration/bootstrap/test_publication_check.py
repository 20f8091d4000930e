"""What the server refuses to start with, and which tables it can not serve (S36)."""

import pytest

from heliograph.postgres.dependency_publication import follow_dependency
from heliograph.postgres.migrate import migrate
from heliograph.postgres.publication import PublishOptions, publish_table
from heliograph.postgres.publication_check import FindingLevel, check_publication

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


async def oid_of(connection, table):
    cursor = await connection.execute("select %s::text::regclass::oid::bigint", (table,))
    return (await cursor.fetchone())[0]


async def published(connection, publication):
    cursor = await connection.execute(
        "select tablename::text from pg_publication_tables where pubname = %s order by 1",
        (publication,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def test_a_publication_of_well_made_tables_has_no_findings(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table t (id int primary key); alter table t enable row level security"
        )
        await publish_table(connection, PublishOptions("t", jitter=lambda: 0.0))
        assert await check_publication(connection, "supabase_realtime") == ()


@pytest.mark.security
@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("create publication p for table auth.users", "schema auth holds credentials"),
        ("create publication p for tables in schema auth", "schema auth holds credentials"),
        ("create publication p for table heliograph.server_secret", "schema heliograph"),
        ("create publication p for all tables", "FOR ALL TABLES"),
        ("select 1", "there is no publication 'p'"),
    ],
)
async def test_credentials_in_the_publication_keep_the_server_from_starting(
    postgres_url, connect, statement, reason
):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(statement)
        findings = await check_publication(connection, "p")
        assert findings[0].level is FindingLevel.REFUSE_START
        assert reason in findings[0].reason


async def test_tables_that_can_not_be_served_are_named_with_the_reason(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table keyless (a int);"
            "create table nothing (id int primary key);"
            "alter table nothing replica identity nothing;"
            "create table coded (id int primary key, code int not null unique);"
            "alter table coded replica identity using index coded_code_key;"
            "create table listed (id int primary key, code int not null unique, more int);"
            "alter table listed replica identity using index listed_code_key;"
            "create table mother (id int primary key); create table daughter () inherits (mother);"
            "create table parts (id int primary key) partition by range (id);"
            "create table parts_1 partition of parts for values from (0) to (9);"
            "create table good (id int primary key);"
            "create publication p for table keyless, nothing, coded, mother, parts, good"
            " with (publish = 'insert, update, delete')"
        )
        findings = await check_publication(connection, "p")
        unservable = {
            finding.table: finding.reason
            for finding in findings
            if finding.level is FindingLevel.TABLE_UNSERVABLE
        }
        assert "no primary key" in unservable["public.keyless"]
        assert "NOTHING" in unservable["public.nothing"]
        assert "does not cover the primary key" in unservable["public.coded"]
        assert "inheritance" in unservable["public.mother"]
        assert "is a partition" in unservable["public.parts_1"]
        assert "public.good" not in unservable
        warnings = [item for item in findings if item.level is FindingLevel.WARNING]
        assert any("TRUNCATE" in item.reason for item in warnings)
        assert any(
            item.table == "public.good" and "row level security is off" in item.reason
            for item in warnings
        )


async def test_a_partitioned_root_needs_publish_via_root(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table parts (id int primary key) partition by range (id);"
            "create table parts_1 partition of parts for values from (0) to (9);"
            "alter publication supabase_realtime add table parts"
        )
        (warning,) = await check_publication(connection, "supabase_realtime")
        assert warning.level is FindingLevel.WARNING
        for listed in ("parts", "public.parts", "*"):
            allowed = {"allow_without_rls": [listed]}
            assert await check_publication(connection, "supabase_realtime", **allowed) == ()
        await connection.execute("alter table parts_1 replica identity nothing")
        findings = await check_publication(connection, "supabase_realtime")
        assert findings[0].level is FindingLevel.TABLE_UNSERVABLE
        assert "public.parts_1 has REPLICA IDENTITY NOTHING" in findings[0].reason


async def test_barriers_of_a_publication_are_mentioned(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await connection.execute(
            "create table t (id int primary key, a int);"
            "alter table t enable row level security;"
            "create table u (id int, a int not null unique);"
            "create publication p for table t where (id > 5) with (publish = 'insert')"
        )
        findings = await check_publication(connection, "p")
        assert {finding.level for finding in findings} == {FindingLevel.WARNING}
        assert any("row filter" in finding.reason for finding in findings)
        assert any("leaves out inserts" in finding.reason for finding in findings)


async def test_a_dependency_is_followed_once(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table members (user_id int, org int, primary key (user_id))"
        )
        oid = await oid_of(connection, "members")
        first = await follow_dependency(connection, oid)
        assert (first.is_followed, first.was_added, first.table) == (True, True, "public.members")
        second = await follow_dependency(connection, oid)
        assert (second.is_followed, second.was_added) == (True, False)
        assert await published(connection, "heliograph_dependencies") == ["members"]
        assert await published(connection, "supabase_realtime") == []


@pytest.mark.parametrize(
    ("statement", "table", "reason"),
    [
        ("create table d (a int)", "d", "has no primary key"),
        (
            "create table d (id int primary key); alter table d replica identity nothing",
            "d",
            "has REPLICA IDENTITY NOTHING",
        ),
        ("create unlogged table d (id int primary key)", "d", "unlogged"),
        ("create temp table d (id int primary key)", "d", "belongs to PostgreSQL"),
        ("create view d as select 1", "d", "is a view"),
        ("select 1", "pg_catalog.pg_class", "belongs to PostgreSQL"),
        ("select 1", "auth.users", "holds credentials"),
        (
            (
                "create table d (id int primary key, a int);"
                "alter publication supabase_realtime add table d (id)"
            ),
            "d",
            "has a column list",
        ),
        (
            (
                "create table d (id int primary key, a int);"
                "alter publication supabase_realtime add table d where (id > 1)"
            ),
            "d",
            "has a row filter",
        ),
    ],
)
async def test_a_table_that_can_not_be_followed_is_left_to_postgresql(
    postgres_url, connect, statement, table, reason
):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(statement)
        result = await follow_dependency(connection, await oid_of(connection, table))
        assert not result.is_followed
        assert reason in result.reason
        assert await published(connection, "heliograph_dependencies") == []


async def test_a_keyless_table_with_full_identity_is_followed(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute("create table d (a int); alter table d replica identity full")
        assert (await follow_dependency(connection, await oid_of(connection, "d"))).is_followed
        await connection.execute("insert into d values (1); update d set a = 2; delete from d")


async def test_a_busy_dependency_may_be_tried_again(postgres_url, connect):
    async with connect(postgres_url) as connection, connect(postgres_url) as writer:
        await migrate(connection)
        await connection.execute("create table d (id int primary key)")
        oid = await oid_of(connection, "d")
        await writer.execute("begin; insert into d values (1)")
        result = await follow_dependency(connection, oid, lock_timeout_s=0.02)
        assert (result.is_followed, result.may_retry) == (False, True)
        await writer.execute("rollback")
        assert (await follow_dependency(connection, oid)).was_added
        await connection.execute("drop table d")
        assert not (await follow_dependency(connection, oid)).is_followed


async def test_without_the_publication_or_the_right_nothing_is_followed(
    postgres_url, connect, other_user
):
    async with connect(postgres_url) as connection:
        await connection.execute("create table d (id int primary key)")
        oid = await oid_of(connection, "d")
        result = await follow_dependency(connection, oid)
        assert "run `heliograph migrate`" in result.reason
        await connection.execute(
            "do $$ begin create role follower login; exception when duplicate_object then null;"
            " end $$"
        )
        async with connect(other_user(postgres_url, "follower")) as follower:
            assert "belongs to postgres" in (await follow_dependency(follower, oid)).reason
