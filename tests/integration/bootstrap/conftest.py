"""Databases for bootstrap tests, on every PostgreSQL that is here.

Roles belong to the cluster, so a test that wants roles to be missing needs a cluster of its own.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from fixtures.postgres import TestCluster, binaries_of, run_test_cluster

Connect = Callable[..., Any]


@pytest.fixture
def any_url(any_cluster: TestCluster, make_database: Callable[[TestCluster], str]) -> str:
    """Superuser's URL of an empty database on each supported PostgreSQL in turn."""
    return make_database(any_cluster)


@pytest.fixture(params=[15, 16, 18], scope="package")
def rolefree_cluster(request: pytest.FixtureRequest) -> Iterator[TestCluster]:
    """A cluster of this package's own; its tests remove the standard roles."""
    with run_test_cluster(binaries_of(request.param)) as cluster:
        yield cluster


@pytest.fixture
def rolefree_url(
    rolefree_cluster: TestCluster, make_database: Callable[[TestCluster], str]
) -> Iterator[str]:
    """Superuser's URL of an empty database on a cluster without any role of ours."""
    _drop_roles(rolefree_cluster)
    url = make_database(rolefree_cluster)
    yield url
    rolefree_cluster.drop_database(url)
    _drop_roles(rolefree_cluster)


@asynccontextmanager
async def connecting(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Open an autocommit connection for one block."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def connect() -> Connect:
    """``async with connect(url) as connection``: autocommit."""
    return connecting


def as_user(url: str, user: str) -> str:
    """The same database as another role; clusters of tests ask for no password."""
    return url.replace("//postgres@", f"//{user}@")


@pytest.fixture
def other_user() -> Callable[[str, str], str]:
    """A function (url, user) → url."""
    return as_user


def _drop_roles(cluster: TestCluster) -> None:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        rows = connection.execute(
            "select rolname from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'"
        ).fetchall()
        for (name,) in rows:
            connection.execute(
                psycopg.sql.SQL("drop owned by {}").format(psycopg.sql.Identifier(name))
            )
            connection.execute(psycopg.sql.SQL("drop role {}").format(psycopg.sql.Identifier(name)))
