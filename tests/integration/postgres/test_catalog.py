"""Describing a table while its definition changes."""

import psycopg
import pytest

from heliograph.postgres.admin import AdminDatabase
from heliograph.postgres.catalog import Catalog

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

SCHEMA = """
create type mood as enum ('sad', 'ok');
create type pair as (a int, b mood);
create table people (id int primary key, now mood, twice pair);
create publication everything for all tables;
"""


def interrupted(url, *, at_query, statement):
    """Return a cursor class that has somebody else run a statement before the n-th query."""

    class InterruptedCursor(psycopg.AsyncCursor):
        queries = 0

        async def execute(self, query, *arguments, **options):
            if b"pg_catalog.pg_" in (query if isinstance(query, bytes) else b""):
                InterruptedCursor.queries += 1
                if InterruptedCursor.queries == at_query:
                    async with await psycopg.AsyncConnection.connect(url) as other:
                        await other.execute(statement)
            return await super().execute(query, *arguments, **options)

    return InterruptedCursor


# First the table is read, then its columns, then their types.
@pytest.mark.parametrize("at_query", [2, 3])
async def test_a_type_that_is_dropped_meanwhile_is_described_as_it_was(postgres_url, at_query):
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        sql.execute(SCHEMA)
        oid = sql.execute("select 'people'::regclass::oid::int").fetchone()[0]
    admin = AdminDatabase(postgres_url)
    await admin.open()
    catalog = Catalog("everything")
    try:
        async with admin.connection() as connection:
            connection.cursor_factory = interrupted(
                postgres_url, at_query=at_query, statement="drop type mood cascade"
            )
            before = await catalog.describe(connection, oid)
            connection.cursor_factory = psycopg.AsyncCursor
            after = await catalog.describe(connection, oid)
    finally:
        await admin.close()
    assert [column.name for column in before.columns] == ["id", "now", "twice"]
    assert [part.name for part in before.columns[2].type.attributes] == ["a", "b"]
    assert [column.name for column in after.columns] == ["id", "twice"]
