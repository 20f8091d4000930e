"""`heliograph publish`: no row of an open writer is lost, and what can not be served is refused."""

import asyncio

import psycopg
import pytest

from fixtures.waiting import wait_until
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.errors import PublicationRefusedError, UnavailableError
from heliograph.postgres.migrate import migrate
from heliograph.postgres.publication import IdentityChoice, PublishOptions, publish_table

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


def options(table, **changes):
    return PublishOptions(table, jitter=lambda: 0.5, **changes)


async def messages_of(connection, slot):
    cursor = await connection.execute(
        "select data from pg_logical_slot_get_binary_changes(%s, null, null,"
        " 'proto_version', '1', 'publication_names', 'supabase_realtime,heliograph_dependencies')",
        (slot,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def wait_until_blocked(connection, pid):
    """Wait until a session waits for a lock; the condition is in the catalog, not in time."""

    async def blockers():
        cursor = await connection.execute("select pg_blocking_pids(%s)", (pid,))
        return (await cursor.fetchone())[0]

    await wait_until(blockers, "a lock to be waited for")


@pytest.mark.parametrize("identity", list(IdentityChoice))
async def test_a_row_of_a_writer_that_was_open_before_is_in_the_stream_or_in_a_snapshot(
    any_url, connect, identity
):
    # Goal: the loss that ALTER PUBLICATION alone causes (replication.md §5) does not happen, with
    # the identity change as well as with the plain lock.
    async with connect(any_url) as admin, connect(any_url) as writer, connect(any_url) as reader:
        await migrate(admin)
        await admin.execute("create table u (id int primary key, what text)")
        await reader.execute("select pg_create_logical_replication_slot('publish_test','pgoutput')")
        await writer.execute("begin; insert into u values (1, 'earlier row')")
        task = asyncio.ensure_future(
            publish_table(admin, options("u", identity=identity, lock_timeout_s=10))
        )
        await wait_until_blocked(reader, admin.info.backend_pid)
        await writer.execute("insert into u values (2, 'later row'); commit")
        report = await task
        assert not report.was_published
        # The writer committed before the table was in the publication, so a snapshot taken now
        # holds both of its rows, and the stream begins with the next one: none is in neither.
        cursor = await reader.execute("select what from u order by id")
        assert [row[0] for row in await cursor.fetchall()] == ["earlier row", "later row"]
        await writer.execute("insert into u values (3, 'row after')")
        data = await messages_of(reader, "publish_test")
        joined = b"".join(data)
        assert (b"earlier row" in joined) == (b"later row" in joined)
        assert b"row after" in joined


async def test_alter_publication_alone_loses_the_row(postgres_url, connect):
    # Control of the test above: it can fail.
    async with connect(postgres_url) as admin, connect(postgres_url) as writer:
        await migrate(admin)
        await admin.execute("create table u (id int primary key, what text)")
        await admin.execute("select pg_create_logical_replication_slot('publish_test','pgoutput')")
        await writer.execute("begin; insert into u values (1, 'earlier row')")
        await admin.execute("alter publication supabase_realtime add table u")
        await writer.execute("insert into u values (2, 'later row'); commit")
        joined = b"".join(await messages_of(admin, "publish_test"))
        assert b"earlier row" not in joined
        assert b"later row" in joined


async def test_full_identity_is_the_default_and_a_second_time_says_so(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute("create table orders (id int primary key, what text)")
        first = await publish_table(connection, options("orders"))
        assert first.identity is ReplicaIdentity.FULL
        assert first.table == "public.orders"
        second = await publish_table(connection, options("public.orders"))
        assert second.was_published
        cursor = await connection.execute(
            "select relreplident from pg_class where oid = 'orders'::regclass"
        )
        assert await cursor.fetchone() == ("f",)


@pytest.mark.parametrize(
    ("identity", "expected"), [(IdentityChoice.DEFAULT, "d"), (IdentityChoice.KEEP, "f")]
)
async def test_another_identity_may_be_asked_for(postgres_url, connect, identity, expected):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table orders (id int primary key);alter table orders replica identity full"
        )
        await publish_table(connection, options("orders", identity=identity))
        cursor = await connection.execute(
            "select relreplident from pg_class where oid = 'orders'::regclass"
        )
        assert await cursor.fetchone() == (expected,)


async def test_a_partitioned_table_is_published_by_its_root_with_every_leaf(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table visits (id int, day int, primary key (id, day)) partition by range (day);"
            "create table visits_1 partition of visits for values from (0) to (10)"
            " partition by range (day);"
            "create table visits_1a partition of visits_1 for values from (0) to (5);"
            "create table visits_2 partition of visits for values from (10) to (20)"
        )
        report = await publish_table(connection, options("visits"))
        assert report.identity is ReplicaIdentity.FULL
        assert any("attached later" in note for note in report.notes)
        cursor = await connection.execute(
            "select relname, relreplident from pg_class where relname ~ '^visits' and relkind = 'r'"
            " order by 1"
        )
        assert await cursor.fetchall() == [("visits_1a", "f"), ("visits_2", "f")]
        with pytest.raises(PublicationRefusedError, match="is a partition: publish visits"):
            await publish_table(
                connection, options("visits_2", publication="heliograph_dependencies")
            )


REFUSED = {
    "no_key": ("create table no_key (a int)", "no primary key"),
    "a_view": ("create view a_view as select 1 as id", "is a view"),
    "stored": ("create materialized view stored as select 1 as id", "materialized view"),
    "volatile_one": ("create unlogged table volatile_one (id int primary key)", "is unlogged"),
    "counter": ("create sequence counter", "is a sequence"),
    "absent": ("select 1", "there is no table 'absent'"),
    "parent": (
        "create table parent (id int primary key); create table child () inherits (parent)",
        "inheritance that is not partitioning",
    ),
    "child": (
        (
            "create table parent (id int primary key); create table child (primary key (id))"
            " inherits (parent)"
        ),
        "inheritance that is not partitioning",
    ),
    "auth.users": ("select 1", "schema auth holds credentials"),
    "heliograph.server_secret": ("select 1", "schema heliograph holds credentials"),
    "pg_catalog.pg_authid": ("select 1", "schema pg_catalog belongs to PostgreSQL"),
    "far": (
        (
            "create extension if not exists postgres_fdw;"
            "create server elsewhere foreign data wrapper postgres_fdw;"
            "create foreign table far (id int) server elsewhere"
        ),
        "is a foreign table",
    ),
}


@pytest.mark.parametrize("table", REFUSED)
@pytest.mark.security
async def test_a_table_that_can_not_be_served_is_refused_with_the_reason(
    postgres_url, connect, table
):
    statements, reason = REFUSED[table]
    async with connect(postgres_url) as connection:
        await migrate(connection)
        if table == "far":
            try:
                await connection.execute("create extension postgres_fdw")
            except psycopg.errors.FeatureNotSupported:
                statements = (
                    "create foreign data wrapper nothing; create server elsewhere"
                    " foreign data wrapper nothing; create foreign table far (id int)"
                    " server elsewhere"
                )
        await connection.execute(statements)
        with pytest.raises(PublicationRefusedError, match=reason):
            await publish_table(connection, options(table))
        cursor = await connection.execute("select count(*) from pg_publication_rel")
        assert await cursor.fetchone() == (0,)


async def test_a_temporary_table_is_refused(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute("create temp table passing (id int primary key)")
        cursor = await connection.execute("select pg_my_temp_schema()::regnamespace::text")
        (schema,) = await cursor.fetchone()
        with pytest.raises(PublicationRefusedError, match="belongs to PostgreSQL"):
            await publish_table(connection, options(f"{schema}.passing"))


@pytest.mark.parametrize(
    ("preparation", "refused"),
    [
        ("alter table t replica identity using index t_code_idx", "does not cover the primary key"),
        ("alter table t replica identity using index t_both_idx", None),
        ("alter table t replica identity nothing", "REPLICA IDENTITY NOTHING"),
    ],
)
async def test_a_kept_identity_must_cover_the_primary_key(
    postgres_url, connect, preparation, refused
):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table t (id int primary key, code text not null);"
            "create unique index t_code_idx on t (code);"
            "create unique index t_both_idx on t (code, id);" + preparation
        )
        if refused is None:
            await publish_table(connection, options("t", identity=IdentityChoice.KEEP))
        else:
            with pytest.raises(PublicationRefusedError, match=refused):
                await publish_table(connection, options("t", identity=IdentityChoice.KEEP))


async def test_an_identity_that_can_not_be_kept_is_replaced_by_full(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table t (id int primary key); alter table t replica identity nothing"
        )
        assert (await publish_table(connection, options("t"))).identity is ReplicaIdentity.FULL


@pytest.mark.security
@pytest.mark.parametrize(
    "name",
    [
        'a";drop table orders;--',
        "x' or 1=1",
        "orders; select 1",
        "\0",
        "orders\0",
        "o" * 64,
        "\u2c9frders",
        "a.b.c",
        "",
        '"',
        '""',
        ".",
        "orders ",
    ],
)
async def test_a_hostile_name_is_no_table(postgres_url, connect, name):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute("create table orders (id int primary key)")
        await connection.execute(f"create table {'o' * 63} (id int primary key)")
        with pytest.raises(PublicationRefusedError, match="there is no table"):
            await publish_table(connection, options(name))


@pytest.mark.parametrize(
    ("created", "asked"),
    [
        ('"Weird ""Table"""', 'Weird "Table"'),
        ('"Weird ""Table"""', '"Weird ""Table"""'),
        ('"Weird ""Table"""', 'public."Weird ""Table"""'),
        ("orders", "ORDERS"),
        ("orders", "Public.Orders"),
        ('"Orders"', "Orders"),
        ('"semi;colon"', "semi;colon"),
    ],
)
async def test_names_are_found_as_typed_or_as_sql_reads_them(postgres_url, connect, created, asked):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(f"create table {created} (id int primary key)".encode())
        report = await publish_table(connection, options(asked))
        assert not report.was_published


async def test_missing_security_policies_and_grants_are_named(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute(
            "create table open_one"
            " (id int primary key, twice int generated always as (id * 2) stored);"
            "revoke all on open_one from anon;"
            "create table closed_one (id int primary key);"
            "alter table closed_one enable row level security;"
            "create policy p on closed_one to authenticated using (true)"
        )
        open_notes = "\n".join((await publish_table(connection, options("open_one"))).notes)
        assert "row level security is off" in open_notes
        assert "GRANT SELECT ON public.open_one TO anon;" in open_notes
        # stored generated columns are published from PostgreSQL 18 on
        expected = connection.info.server_version < 180000
        assert ("generated columns (twice)" in open_notes) is expected
        closed_notes = (await publish_table(connection, options("closed_one"))).notes
        assert [note for note in closed_notes if "no policy lets anon" in note]
        assert not [note for note in closed_notes if "authenticated" in note]


async def test_a_table_that_stays_busy_is_given_up_and_the_writer_is_not_hurt(
    postgres_url, connect
):
    async with connect(postgres_url) as connection, connect(postgres_url) as writer:
        await migrate(connection)
        await connection.execute("create table t (id int primary key)")
        await writer.execute("begin; insert into t values (1)")
        with pytest.raises(UnavailableError, match="in use"):
            await publish_table(connection, options("t", lock_timeout_s=0.02, attempts_max=2))
        await writer.execute("insert into t values (2); commit")
        assert not (await publish_table(connection, options("t"))).was_published


async def test_a_key_dropped_while_the_lock_was_waited_for_is_noticed(postgres_url, connect):
    async with connect(postgres_url) as admin, connect(postgres_url) as other:
        await migrate(admin)
        await admin.execute("create table t (id int primary key)")
        await other.execute("begin; alter table t drop constraint t_pkey")
        task = asyncio.ensure_future(publish_table(admin, options("t", lock_timeout_s=10)))
        await wait_until_blocked(other, admin.info.backend_pid)
        await other.execute("commit")
        with pytest.raises(PublicationRefusedError, match="no primary key"):
            await task


async def test_somebody_elses_table_or_publication_is_refused(
    postgres_url, connect, other_user, postgres_cluster
):
    async with connect(postgres_url) as admin:
        await migrate(admin)
        await admin.execute(
            "do $$ begin create role publisher login; exception when duplicate_object then null;"
            " end $$; create table t (id int primary key)"
        )
        async with connect(other_user(postgres_url, "publisher")) as connection:
            with pytest.raises(PublicationRefusedError, match="belongs to another role"):
                await publish_table(connection, options("t"))
            await admin.execute("alter publication supabase_realtime owner to postgres")
            with pytest.raises(PublicationRefusedError, match="run `heliograph migrate`"):
                await publish_table(connection, options("t", publication="absent"))


@pytest.mark.security
async def test_credentials_that_are_published_already_are_not_called_well(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute("alter publication supabase_realtime add table auth.users")
        with pytest.raises(PublicationRefusedError, match="schema auth holds credentials"):
            await publish_table(connection, options("auth.users"))


async def test_a_publication_for_all_tables_is_refused(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await connection.execute(
            "create table t (id int primary key); create publication everything for all tables"
        )
        with pytest.raises(PublicationRefusedError, match="FOR ALL TABLES"):
            await publish_table(connection, options("t", publication="everything"))
