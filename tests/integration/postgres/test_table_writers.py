"""Who may have written to a table and has not ended, as PostgreSQL's lock table says."""

import contextlib

import psycopg
import pytest

from fixtures.postgres import binaries_of, run_test_cluster
from heliograph.core.replication.snapshot import parse_snapshot, precedes
from heliograph.postgres.table_writers import read_table_writers

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

TABLES = (
    "create table a (id int)",
    "create table b (id int)",
    "create table p (id int) partition by range (id)",
    "create table p1 partition of p for values from (0) to (10)",
)


@pytest.fixture(scope="module", params=[15, 18])
def cluster(request):
    settings = {"max_prepared_transactions": "2"}
    with run_test_cluster(binaries_of(request.param), settings) as preparing:
        yield preparing


async def one(connection, statement, *parameters):
    ((value,),) = await (await connection.execute(statement, parameters)).fetchall()
    return value


@contextlib.asynccontextmanager
async def transaction(url, *statements):
    """Give the id of an open transaction that has run some statements; None without one."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for statement in statements:
            await connection.execute(statement)
        yield await one(connection, "select pg_current_xact_id_if_assigned()::text::bigint")
        await connection.rollback()


@contextlib.asynccontextmanager
async def sql_of(cluster):
    url = cluster.create_database()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
        for statement in TABLES:
            await sql.execute(statement)
        named = [await one(sql, "select %s::regclass::oid::bigint", name) for name in "abp"]
        yield url, sql, named


async def test_writers_of_a_table_and_of_its_partitions_are_found_and_nobody_else(cluster):
    async with sql_of(cluster) as (url, sql, (a, b, p)):
        read = "select from a, b, p"
        async with (
            transaction(url, "insert into a values (1)") as first,
            transaction(url, read, "savepoint s", "insert into a values (2)") as second,
            transaction(url, "insert into p1 values (1)") as partition,
            transaction(url, read, "select pg_current_xact_id()"),
            transaction(url, read, "select from b for update", "lock table b in share mode"),
        ):
            writers = await read_table_writers(sql, [a, b, p])
            found = writers.by_table
            assert all(precedes(xid, writers.next_xid) for xid in (first, second, partition))
            async with transaction(url, "insert into a values (3)") as later:
                assert not precedes(later, writers.next_xid)
            assert found.keys() == {a, p}
            assert found[a] > {first, second}
            assert found[p] == {partition}
        assert (await read_table_writers(sql, [a, b, p])).by_table == {}


async def test_a_prepared_transaction_is_one_until_it_is_committed(cluster):
    async with sql_of(cluster) as (url, sql, (a, _, _)):
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute("insert into a values (1)")
            xid = await one(connection, "select pg_current_xact_id()::text::bigint")
            await connection.execute("prepare transaction 'one'")
        assert (await read_table_writers(sql, [a])).by_table == {a: {xid}}
        assert not parse_snapshot(await one(sql, "select pg_current_snapshot()::text")).sees(xid)
        await sql.execute("commit prepared 'one'")
        assert (await read_table_writers(sql, [a])).by_table == {}
        assert parse_snapshot(await one(sql, "select pg_current_snapshot()::text")).sees(xid)
