"""A database that holds the demo shop, made anew for each module or each test that asks for it."""

import asyncio
from collections.abc import Iterator

import pytest

from fixtures.demo import load, run_migrations
from fixtures.postgres import TestCluster


@pytest.fixture
def migrated_url(postgres_url: str) -> str:
    """URL of a database with the base migrations and nothing else."""
    asyncio.run(run_migrations(postgres_url))
    return postgres_url


@pytest.fixture
def demo_url(migrated_url: str) -> str:
    """URL of a database with the demo, for a test that changes it."""
    asyncio.run(load(migrated_url))
    return migrated_url


@pytest.fixture(scope="module")
def shared_demo_url(postgres_cluster: TestCluster) -> Iterator[str]:
    """URL of a database with the demo, for the tests of a module that only read."""
    url = postgres_cluster.create_database()
    try:
        asyncio.run(run_migrations(url))
        asyncio.run(load(url))
        yield url
    finally:
        postgres_cluster.drop_database(url)
