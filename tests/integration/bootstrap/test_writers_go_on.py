"""Whatever is published, the application's UPDATE and DELETE go on: PostgreSQL refuses them for a
published table whose replica identity it can not use (`replication.md` §5).
"""

import asyncio

import psycopg
import pytest

from fixtures.waiting import wait_until
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.errors import PublicationRefusedError
from heliograph.postgres.dependency_publication import follow_dependency
from heliograph.postgres.migrate import migrate
from heliograph.postgres.publication import IdentityChoice, PublishOptions, publish_table

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

#: Tables of (id, body) whose identity is somehow peculiar.
TABLES = {
    "ordinary": "create table t (id int primary key, body text)",
    "keyless": "create table t (id int, body text)",
    "deferrable key": "create table t (id int primary key deferrable, body text)",
    "deferrable key of a partition": (
        "create table t (id int, body text, primary key (id) deferrable) partition by range (id);"
        "create table t1 partition of t for values from (0) to (10)"
    ),
    "lost index": (
        "create table t (id int primary key, body text);"
        "create unique index i on t (id); alter table t replica identity using index i;"
        "drop index i"
    ),
    "nothing": (
        "create table t (id int primary key, body text); alter table t replica identity nothing"
    ),
    "stored column": (
        "create table t (id int primary key, body text, g int generated always as (id * 2) stored)"
    ),
    "stored column in a full identity": (
        "create table t (id int primary key, body text, g int generated always as (id * 2) stored);"
        "alter table t replica identity full"
    ),
    "stored column in a key": (
        "create table t (id int, body text, g int generated always as (id * 2) stored primary key)"
    ),
    "virtual column": (
        "create table t (id int primary key, body text, g int generated always as (id * 2) virtual)"
    ),
    "virtual column in a full identity": (
        "create table t (id int primary key, body text);"
        "alter table t replica identity full, add g int generated always as (id * 2) virtual"
    ),
}
WRITE = "insert into t values (1, 'a'); update t set body = 'b'; delete from t"


async def create(connection, name):
    await migrate(connection)
    if "virtual" in name and connection.info.server_version < 180_000:
        with pytest.raises(psycopg.errors.SyntaxError):
            await connection.execute(TABLES[name])
        return False
    await connection.execute(TABLES[name])
    return True


@pytest.mark.parametrize("identity", list(IdentityChoice))
@pytest.mark.parametrize("name", TABLES)
async def test_what_publish_accepts_can_be_written_and_what_it_refuses_too(
    any_url, connect, name, identity
):
    async with connect(any_url) as connection:
        if not await create(connection, name):
            return
        options = PublishOptions("t", jitter=lambda: 0.5, identity=identity)
        try:
            await publish_table(connection, options)
        except PublicationRefusedError as refused:
            assert name != "ordinary"
            assert "UPDATE and DELETE" in str(refused) or "no primary key" in str(refused)
        await connection.execute(WRITE)


@pytest.mark.parametrize("name", TABLES)
async def test_a_table_that_is_followed_can_be_written(any_url, connect, name):
    async with connect(any_url) as connection:
        if not await create(connection, name):
            return
        cursor = await connection.execute("select 't'::regclass::oid::bigint")
        ((oid,),) = await cursor.fetchall()
        result = await follow_dependency(connection, oid)
        assert result.is_followed or "UPDATE and DELETE" in result.reason
        await connection.execute(WRITE)


@pytest.mark.parametrize("identity", list(IdentityChoice))
async def test_a_publication_that_sends_no_generated_columns_is_minded(any_url, connect, identity):
    async with connect(any_url) as connection:
        await create(connection, "stored column in a full identity")
        await connection.execute("create publication plain")
        options = PublishOptions("t", jitter=lambda: 0.5, identity=identity, publication="plain")
        try:
            await publish_table(connection, options)
        except PublicationRefusedError as refused:
            assert "publication plain does not send" in str(refused)
            assert connection.info.server_version >= 180_000
        await connection.execute(WRITE)


async def test_publishing_again_says_what_keeps_writers_from_writing(postgres_url, connect):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(TABLES["ordinary"])
        options = PublishOptions("t", jitter=lambda: 0.5)
        await publish_table(connection, options)
        await connection.execute("alter table t replica identity nothing")
        report = await publish_table(connection, options)
        assert report.was_published
        assert any("REPLICA IDENTITY NOTHING: UPDATE and DELETE" in note for note in report.notes)
        await connection.execute("alter table t replica identity full")
        options = PublishOptions("t", jitter=lambda: 0.5, identity=IdentityChoice.DEFAULT)
        report = await publish_table(connection, options)
        assert report.identity is ReplicaIdentity.FULL
        assert any("FULL was left as it is" in note for note in report.notes)


async def test_two_who_follow_the_same_table_at_once_both_follow_it(postgres_url, connect):
    async with connect(postgres_url) as connection, connect(postgres_url) as other:
        await migrate(connection)
        await connection.execute(TABLES["ordinary"])
        cursor = await connection.execute("select 't'::regclass::oid::bigint")
        ((oid,),) = await cursor.fetchall()
        await other.execute("begin; alter publication heliograph_dependencies add table t")
        following = asyncio.create_task(follow_dependency(connection, oid, lock_timeout_s=10))

        async def is_waiting():
            pid = connection.info.backend_pid
            cursor = await other.execute("select cardinality(pg_blocking_pids(%s)) > 0", (pid,))
            return (await cursor.fetchone())[0]

        await wait_until(is_waiting, "the second one to wait for the first")
        await other.execute("commit")
        assert (await following).is_followed
