"""Filter terms that PostgreSQL reads and judges (security S17, S18).

That the expressions answer as a query does is checked for every type in tests/oracle.
"""

from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection, sql

from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.core.matching.filter_parser import FilterOperator, FilterTerm
from heliograph.core.matching.filters import BoundParameters, bind_parameters
from heliograph.core.matching.record_literal import record_literal
from heliograph.core.matching.table_description import TableDescription
from heliograph.errors import SubscriptionRefusedError
from heliograph.postgres.catalog import Catalog
from heliograph.postgres.filter_sql import filter_expression, identifier, refuse_invalid_terms

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

_HOSTILE = 'a"; drop table victim; -- %s %(x)s'
_TYPE = f"{_HOSTILE} type"
_REGEX = "ERROR P0001 (raise_exception) invalid regular expression for match filter:"
_MOMENT = "ERROR 22007 (invalid_datetime_format)"
_RANGE = "ERROR 22003 (numeric_value_out_of_range)"
_OPERATOR = "ERROR 42883 (undefined_function)"


@pytest_asyncio.fixture
async def connection(postgres_url: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("create publication everything for all tables")
        yield connection


async def _described(connection: AsyncConnection, name: str) -> TableDescription:
    row = await (
        await connection.execute("select oid::int from pg_class where relname = %s", (name,))
    ).fetchone()
    assert row is not None
    table = await Catalog("everything").describe(connection, row[0])
    assert table is not None
    return table


def _bound(table: TableDescription, operator: str, value: str) -> BoundParameters:
    term = FilterTerm(table.columns[1].name, FilterOperator(operator), value)
    parameters = BindingParameters("*", table.schema, table.name, (term,))
    return bind_parameters(parameters, table, {c.name for c in table.columns})


async def _answers(
    connection: AsyncConnection, table: TableDescription, bound: BoundParameters, *values: str
) -> list[object]:
    built = filter_expression(bound.terms[0], table.name)
    query = sql.SQL("select {} from unnest(%s::text[]::{}[]) as {}").format(
        built.expression, identifier(table.schema, table.name), identifier(table.name)
    )
    rows = [record_literal(["1", value]) for value in values]
    cursor = await connection.execute(query, (*built.parameters, rows))
    return [row[0] for row in await cursor.fetchall()]


@pytest.mark.parametrize(
    ("kind", "operator", "value", "exception"),
    [
        (
            "text",
            "match",
            "(",
            f"{_REGEX} invalid regular expression: parentheses () not balanced",
        ),
        (
            "timestamptz",
            "gt",
            "someday",
            f'{_MOMENT} invalid input syntax for type timestamp with time zone: "someday"',
        ),
        (
            "float8",
            "eq",
            "1e999",
            f'{_RANGE} "1e999" is out of range for type double precision',
        ),
        (
            "json",
            "eq",
            "{}",
            "ERROR 42883 (undefined_function) operator does not exist: json pg_catalog.= json",
        ),
    ],
)
async def test_what_postgresql_does_not_accept_is_refused_in_its_words(
    connection: AsyncConnection, kind: str, operator: str, value: str, exception: str
) -> None:
    await connection.execute(f"create table things (id int primary key, v {kind})".encode())
    bound = _bound(await _described(connection, "things"), operator, value)
    with pytest.raises(SubscriptionRefusedError) as caught:
        await refuse_invalid_terms(connection, bound)
    assert str(caught.value).endswith(f"Exception: {exception}")


async def test_a_failure_that_the_constant_did_not_cause_is_no_refusal(
    connection: AsyncConnection,
) -> None:
    await connection.execute("create table things (id int primary key, v float8)")
    bound = _bound(await _described(connection, "things"), "eq", "1")
    await connection.close()
    with pytest.raises(psycopg.OperationalError):
        await refuse_invalid_terms(connection, bound)


async def test_hostile_names_and_constants_stay_names_and_constants(
    connection: AsyncConnection,
) -> None:
    await connection.execute("create table victim (id int)")
    names = [sql.Identifier(name) for name in (_TYPE, _HOSTILE, _HOSTILE, _TYPE)]
    await connection.execute(
        sql.SQL("create domain {} as varchar; create table {} (id int primary key, {} {})").format(
            *names
        )
    )
    table = await _described(connection, _HOSTILE)
    constant = "'; drop table victim; -- \\ %s \" {x}"
    for operator in ("eq", "like", "gt", "isdistinct"):
        bound = _bound(table, operator, constant)
        await refuse_invalid_terms(connection, bound)
        await _answers(connection, table, bound, constant, "other")
    bound = _bound(table, "eq", constant)
    assert await _answers(connection, table, bound, constant, "other") == [True, False]
    await connection.execute("select from victim")


async def test_an_operator_of_another_schema_is_not_found_first(
    connection: AsyncConnection,
) -> None:
    await connection.execute(
        "create table things (id int primary key, v varchar);"
        "create function always(varchar, varchar) returns bool language sql as 'select true';"
        "create operator = (leftarg = varchar, rightarg = varchar, function = always)"
    )
    row = await (await connection.execute("select 'a'::varchar = 'b'::varchar")).fetchone()
    assert row == (True,)
    table = await _described(connection, "things")
    assert await _answers(connection, table, _bound(table, "eq", "b"), "a", "b") == [False, True]


async def test_a_domain_with_operators_of_its_own_is_compared_by_them(
    connection: AsyncConnection,
) -> None:
    await connection.execute(
        "create domain letters as text; create table things (id int primary key, v letters);"
        "create function same_letters(letters, letters) returns bool language sql immutable"
        " as 'select lower($1::text) operator(pg_catalog.=) lower($2::text)';"
        "create operator = (leftarg = letters, rightarg = letters, function = same_letters)"
    )
    table = await _described(connection, "things")
    bound = _bound(table, "eq", "B")
    assert not bound.terms[0].is_decided_in_python
    await refuse_invalid_terms(connection, bound)
    assert await _answers(connection, table, bound, "a", "b") == [False, True]


@pytest.mark.security
async def test_an_expensive_regular_expression_ends_with_the_statement_timeout(
    connection: AsyncConnection,
) -> None:
    await connection.execute("create table things (id int primary key, v text)")
    table = await _described(connection, "things")
    bound = _bound(table, "match", r"^(a*)(a*)(a*)(a*)\4\3\2\1b$")
    await refuse_invalid_terms(connection, bound)
    await connection.execute("set statement_timeout = '200ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        await _answers(connection, table, bound, "a" * 201 + "b")
