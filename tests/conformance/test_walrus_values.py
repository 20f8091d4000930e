"""Changes read from a real WAL have the values that walrus gives them.

Method: one replication slot with pgoutput per case, read through SQL after each statement; the
messages go through our assembler, filters and encoder, without a server. What depends on policies
and roles is checked where a server runs.
"""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import AsyncConnection, sql

from conformance.walrus_cases import CASES, OPERATORS, Told, WalrusCase
from heliograph.core.matching.binding_parameters import BindingParameters, parse_binding_parameters
from heliograph.core.matching.change_json import ChangeEncoder, shown_columns
from heliograph.core.matching.filter_parser import parse_filter
from heliograph.core.matching.filters import BoundParameters, bind_parameters
from heliograph.core.matching.predicates import compile_filter
from heliograph.core.matching.record_literal import record_literal
from heliograph.core.matching.table_description import TableDescription
from heliograph.core.matching.visibility import Verdict
from heliograph.core.replication.assembler import Assembler
from heliograph.core.replication.oversize import Spill
from heliograph.core.replication.row_change import RowChange
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import SubscriptionRefusedError
from heliograph.postgres.catalog import Catalog
from heliograph.postgres.filter_sql import filter_expression, identifier, refuse_invalid_terms

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

_READ = """
select data from pg_logical_slot_get_binary_changes('walrus_values', null, null,
  'proto_version', '1', 'publication_names', 'everything')
"""


def _no_spill() -> Spill:
    raise AssertionError("no case has an oversize transaction")


class Subscriber:
    """One subscription over one table, and what it is told."""

    def __init__(
        self, connection: AsyncConnection, case: WalrusCase, table: TableDescription
    ) -> None:
        self._connection = connection
        self._table = table
        self._assembler = Assembler(make_spill=_no_spill)
        schema, name = case.table.split(".")
        raw: dict[str, object] = {"event": case.event, "schema": schema, "table": name}
        if case.filter:
            raw["filter"] = case.filter
        if case.select is not None:
            raw["select"] = list(case.select)
        self._selectable = case.selectable or {c.name for c in table.columns}
        self._bound = bind_parameters(parse_binding_parameters(raw), table, self._selectable)

    async def receive(self) -> list[dict[str, Any]]:
        """Read the WAL and return every ``data`` object that the subscriber gets."""
        rows = await (await self._connection.execute(_READ)).fetchall()
        told: list[dict[str, Any]] = []
        for (payload,) in rows:
            transaction = self._assembler.receive(payload)
            if isinstance(transaction, Transaction):
                for change in transaction.decode({self._table.oid: None}):
                    told += await self._told(change, transaction.commit_time_us)
        return told

    async def _told(self, change: RowChange, time_us: int) -> list[dict[str, Any]]:
        parameters = self._bound.parameters
        compiled = compile_filter(self._bound.terms, self._table, change.relation)
        judged = change.new if change.new is not None else change.old
        assert judged is not None
        if parameters.event not in ("*", change.kind.value):
            return []
        if compiled.decide(judged) is not Verdict.YES:
            return []
        assert not compiled.sql_terms
        shown = shown_columns(self._table, self._selectable, parameters.select)
        encoder = ChangeEncoder(self._table, change.relation, shown)
        return [json.loads(encoder.encode(change.kind, change.new, change.old, time_us))]


def _expected(case: WalrusCase, told: Sequence[Told]) -> list[dict[str, Any]]:
    schema, name = case.table.split(".")
    objects: list[dict[str, Any]] = []
    for one in told:
        columns = [{"name": column, "type": kind} for column, kind in one.columns.items()]
        shown = {"type": one.type, "schema": schema, "table": name, "columns": columns}
        if one.record is not None:
            shown["record"] = one.record
        if one.old_record is not None:
            shown["old_record"] = one.old_record
        objects.append({**shown, "errors": one.errors})
    return objects


async def _described(connection: AsyncConnection, name: str) -> TableDescription:
    row = await (await connection.execute("select %s::regclass::oid::int", (name,))).fetchone()
    assert row is not None
    table = await Catalog("everything").describe(connection, row[0])
    assert table is not None
    return table


async def _prepare(connection: AsyncConnection, setup: str) -> None:
    await connection.execute(setup.encode())
    await connection.execute("create publication everything for all tables")
    await connection.execute(
        "select pg_create_logical_replication_slot('walrus_values', 'pgoutput')"
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.follows}: {case.filter}")
async def test_changes_have_the_values_of_walrus(postgres_url: str, case: WalrusCase) -> None:
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await _prepare(connection, case.setup)
        subscriber = Subscriber(connection, case, await _described(connection, case.table))
        for step in case.steps:
            await connection.execute(step.statement.encode())
            received = await subscriber.receive()
            for data in received:
                assert data.pop("commit_timestamp").endswith("Z")
            assert received == _expected(case, step.told), step.statement


async def test_operators_answer_as_walrus_does(postgres_url: str) -> None:
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        for kind in ("text", "int8", "uuid"):
            await connection.execute(
                f"create table {kind}s (id int primary key, v {kind})".encode()
            )
        for kind, operator, value, constant, answer in OPERATORS:
            table = await _described(connection, f"{kind}s")
            terms = parse_filter(f"v={operator}.{constant}")
            parameters = BindingParameters("*", "public", table.name, terms)
            bound = bind_parameters(parameters, table, {"v"})
            await refuse_invalid_terms(connection, bound)
            assert await _judged(connection, table, bound, value) is answer, (operator, value)


async def _judged(
    connection: AsyncConnection, table: TableDescription, bound: BoundParameters, value: str | None
) -> object:
    expression = filter_expression(bound.terms[0], "row")
    query = sql.SQL("select {} from unnest(%s::text[]::{}[]) as {}").format(
        expression.expression, identifier(table.schema, table.name), identifier("row")
    )
    cursor = await connection.execute(
        query, (*expression.parameters, [record_literal(["1", value])])
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("filter_text", "select", "words"),
    [
        ("", ("missing",), "invalid column for select missing"),
        (f"body=in.({','.join('1' * 101)})", None, "too many values for `in` filter. Maximum 100"),
    ],
)
async def test_subscriptions_that_walrus_refuses_are_refused_in_its_words(
    postgres_url: str, filter_text: str, select: tuple[str, ...] | None, words: str
) -> None:
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("create table articles (id int primary key, body text)")
        table = await _described(connection, "articles")
    parameters = BindingParameters("*", "public", "articles", parse_filter(filter_text), select)
    with pytest.raises(SubscriptionRefusedError, match="P0001") as caught:
        bind_parameters(parameters, table, {"id", "body"})
    assert words in str(caught.value)
