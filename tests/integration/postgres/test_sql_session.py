"""`SqlSession` over psycopg: results, transactions, and errors told apart by whether to retry."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from heliograph import limits
from heliograph.errors import StorageError, UnavailableError
from heliograph.ports.sql_session import SqlSession
from heliograph.postgres.sql_session import open_sql_session

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


@pytest_asyncio.fixture
async def session(postgres_url: str) -> AsyncIterator[SqlSession]:
    async with open_sql_session(postgres_url, application_name="test session") as opened:
        yield opened


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'")
        return {row[0] for row in rows}


async def test_rows_are_mappings_by_column_name(session):
    rows = await session.execute("select n, n::text as t from generate_series(1, 2) as n")
    assert rows == [{"n": 1, "t": "1"}, {"n": 2, "t": "2"}]


async def test_values_are_bound(session):
    text = "'; drop table x; --%s"
    [row] = await session.execute("select %s::text as value, '100%%' as rate", (text,))
    assert row == {"value": text, "rate": "100%"}


async def test_without_parameters_a_text_is_sent_as_it_is_and_may_be_several_statements(
    session, postgres_url
):
    rows = await session.execute(
        "create table one (rate text default '100%s'); create table two (id int)"
    )
    assert list(rows) == []
    assert tables(postgres_url) == {"one", "two"}


async def test_several_statements_succeed_or_fail_together(session, postgres_url):
    with pytest.raises(StorageError):
        await session.execute("create table one (id int); select 1 / 0")
    assert tables(postgres_url) == set()


async def test_each_statement_is_a_transaction_of_its_own(session, postgres_url):
    await session.execute("create table one (id int)")
    assert tables(postgres_url) == {"one"}


async def in_transaction(session: SqlSession, *statements: str, error: type | None = None) -> None:
    async with session.transaction():
        for statement in statements:
            await session.execute(statement)
        if error is not None:
            raise error


async def test_an_exception_rolls_the_transaction_back_and_the_session_goes_on(
    session, postgres_url
):
    with pytest.raises(ZeroDivisionError):
        await in_transaction(session, "create table one (id int)", error=ZeroDivisionError)
    with pytest.raises(StorageError):
        await in_transaction(session, "create table one (id int)", "select 1 / 0")
    await in_transaction(session, "create table two (id int)")
    assert tables(postgres_url) == {"two"}


async def test_a_failure_that_was_swallowed_can_not_look_like_a_commit(session, postgres_url):
    async def swallow() -> None:
        async with session.transaction():
            await session.execute("create table one (id int)")
            with contextlib.suppress(StorageError):
                await session.execute("select 1 / 0")

    with pytest.raises(StorageError, match="had failed"):
        await swallow()
    assert tables(postgres_url) == set()


async def test_a_cancelled_transaction_is_rolled_back(session, postgres_url):
    async def cancelled() -> None:
        async with session.transaction():
            await session.execute("create table one (id int)")
            async with asyncio.timeout(0.05):
                await session.execute("select pg_sleep(20)")

    with pytest.raises(TimeoutError):
        await cancelled()
    assert tables(postgres_url) == set()
    assert await session.execute("select 1 as n") == [{"n": 1}]


async def test_what_fails_at_commit_is_reported(session):
    await session.execute(
        "create table one (id int primary key);"
        "create table two (one int references one deferrable initially deferred)"
    )
    with pytest.raises(StorageError, match="SQLSTATE 23503"):
        async with session.transaction():
            await session.execute("insert into two values (1)")


async def test_a_refusal_names_its_sqlstate_and_no_value(session):
    await session.execute("create table one (name text unique)")
    await session.execute("insert into one values (%s)", ("a secret value",))
    with pytest.raises(StorageError, match="SQLSTATE 23505") as caught:
        await session.execute("insert into one values (%s)", ("a secret value",))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("state", ["40001", "40P01", "53300", "55P03", "57014"])
async def test_what_another_attempt_may_pass_is_unavailable(session, state):
    statement = f"do $$ begin raise exception 'x' using errcode = '{state}'; end $$"
    with pytest.raises(UnavailableError, match=state):
        await session.execute(statement)


async def test_a_killed_connection_is_unavailable_also_inside_a_transaction(session, postgres_url):
    async def killed() -> None:
        async with session.transaction():
            [row] = await session.execute("select pg_backend_pid() as pid")
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("select pg_terminate_backend(%s, 5000)", (row["pid"],))
            await session.execute("select 1")

    with pytest.raises(UnavailableError):
        await killed()
    with pytest.raises(UnavailableError):
        await session.execute("select 1")


async def test_a_statement_that_takes_too_long_is_cancelled(postgres_url, monkeypatch):
    monkeypatch.setattr(limits, "SQL_STATEMENT_TIMEOUT_S", 0.05)
    async with open_sql_session(postgres_url, application_name="test") as session:
        with pytest.raises(UnavailableError, match="57014"):
            await session.execute("select pg_sleep(20)")
        assert await session.execute("select 1 as n") == [{"n": 1}]


async def test_a_server_that_does_not_answer_is_given_up(session, monkeypatch):
    monkeypatch.setattr(limits, "SQL_STATEMENT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(limits, "SQL_ANSWER_MARGIN_S", 0.05)
    with pytest.raises(UnavailableError, match="does not answer"):
        await session.execute("select pg_sleep(20)")
    with pytest.raises(UnavailableError):
        await session.execute("select 1")


async def test_a_database_that_is_not_there_is_unavailable_without_its_password(postgres_url):
    for url in ("postgresql://me:hidden-word@127.0.0.1:1/x", f"{postgres_url}_not"):
        with pytest.raises(UnavailableError) as caught:
            async with open_sql_session(url, application_name="test"):
                pass
        assert "hidden-word" not in str(caught.value)


async def test_what_the_url_sets_for_the_session_stays(postgres_url):
    url = f"{postgres_url}?options=-csearch_path%3Dpg_catalog"
    async with open_sql_session(url, application_name="named") as session:
        [row] = await session.execute(
            "select current_setting('search_path') as path,"
            " current_setting('application_name') as name,"
            " current_setting('statement_timeout') as timeout"
        )
    assert row == {"path": "pg_catalog", "name": "named", "timeout": "30s"}
