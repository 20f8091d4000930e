"""Our verdict on a filter term is PostgreSQL's answer to ``value operator constant``.

Method: for every type a table with one column of it. PostgreSQL prints the values (that is what
the WAL carries), evaluates the plain expression written here, and the expression that
``postgres/filter_sql.py`` builds; the compiled filter decides the same rows in Python. All must
agree, and a constant that we refuse must be one that PostgreSQL refuses.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from psycopg import AsyncConnection, sql

from fixtures.postgres import TestCluster
from heliograph.core.matching.binding_parameters import BindingParameters
from heliograph.core.matching.filter_parser import FilterOperator, FilterTerm
from heliograph.core.matching.filters import BoundParameters, BoundTerm, bind_parameters
from heliograph.core.matching.predicates import compile_filter
from heliograph.core.matching.record_literal import record_literal
from heliograph.core.matching.table_description import TableDescription
from heliograph.core.matching.visibility import Verdict
from heliograph.core.replication.relation import Relation, RelationColumn
from heliograph.errors import SubscriptionRefusedError
from heliograph.postgres.catalog import Catalog
from heliograph.postgres.filter_sql import filter_expression, identifier, refuse_invalid_terms
from oracle.filter_cases import CASES, COMPARISONS, PATTERNS, TypeCase

pytestmark = pytest.mark.postgres

_PLAIN = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
}
_SETUP = """
create extension citext;
create type mood as enum ('sad', 'ok', 'Very Happy');
create type pair as (a int, b text);
create domain positive as int check (value > 0);
create domain label as text;
create domain short_label as label;
create publication everything for all tables;
"""


@dataclass
class Oracle:
    """One database in which every case makes its table."""

    connection: psycopg.Connection
    asynchronous: AsyncConnection
    runner: asyncio.Runner

    def describe(self, declared: str, table: str = "things") -> TableDescription:
        """Make a table whose second column has a type, with a name that asks for trouble."""
        self.connection.execute(f"drop table if exists {table}".encode())
        self.connection.execute(
            f'create table {table} (id int8 primary key, "the %s ""value" {declared})'.encode()
        )
        row = self.connection.execute("select %s::regclass::oid", (table,)).fetchone()
        assert row is not None
        asked = Catalog("everything").describe(self.asynchronous, row[0])
        described = self.runner.run(asked)
        assert described is not None
        return described

    def printed(self, type_name: str, values: Sequence[str]) -> list[str | None]:
        """Return the values as PostgreSQL prints them, and NULL."""
        rows = self.connection.execute(
            f"select concat(v::{type_name}) from unnest(%s::text[]) with ordinality as u(v, i)"
            " order by i".encode(),
            (list(values),),
        ).fetchall()
        return [*[row[0] for row in rows], None]

    def plain(
        self, type_name: str, values: Sequence[str | None], term: FilterTerm
    ) -> list[bool | None] | psycopg.Error:
        """Evaluate the term as a query would spell it; the error if it can not be."""
        value, constant = f"(v::{type_name})", f"(%(c)s::text::{type_name})"
        operator = term.operator.value
        if operator == "isdistinct":
            no = "not " if term.negated else ""
            expression = f"{value} is {no}distinct from {constant}"
        elif operator == "is":
            no = "not " if term.negated else ""
            expression = f"{value} is {no}{term.value}"
        elif operator == "in":
            expression = f"{value} = any (%(c)s::text::{type_name}[])"
        else:
            pattern = operator in PATTERNS and type_name not in ("bytea", "citext")
            expression = f"{value} {_PLAIN[operator]} {'%(c)s::text' if pattern else constant}"
        if term.negated and operator not in ("is", "isdistinct"):
            expression = f"not ({expression})"
        query = (
            f"select {expression} from unnest(%(v)s::text[]) with ordinality as u(v, i) order by i"
        )
        try:
            rows = self.connection.execute(
                query.encode(), {"c": term.value, "v": list(values)}
            ).fetchall()
        except psycopg.Error as error:
            return error
        return [row[0] for row in rows]

    def built(
        self, table: TableDescription, values: Sequence[str | None], term: BoundTerm
    ) -> list[bool | None]:
        """Evaluate the expression that the exact path uses, over composite texts."""
        expression = filter_expression(term, "row")
        query = sql.SQL("select {} from unnest(%s::text[]::{}[]) as {}").format(
            expression.expression, identifier(table.schema, table.name), identifier("row")
        )
        rows = self.connection.execute(
            query,
            (*expression.parameters, [record_literal(["1", value]) for value in values]),
        ).fetchall()
        return [row[0] for row in rows]

    def refusal(self, bound: BoundParameters) -> SubscriptionRefusedError | None:
        """Let PostgreSQL look at what Python could not prove."""

        async def ask() -> None:
            async with self.asynchronous.transaction(force_rollback=True):
                await refuse_invalid_terms(self.asynchronous, bound)

        try:
            self.runner.run(ask())
        except SubscriptionRefusedError as refusal:
            return refusal
        return None

    def _bound(
        self, table: TableDescription, term: FilterTerm
    ) -> BoundParameters | SubscriptionRefusedError:
        parameters = BindingParameters("*", "public", "things", (term,))
        try:
            bound = bind_parameters(parameters, table, {"id", table.columns[1].name})
        except SubscriptionRefusedError as refusal:
            return refusal
        return self.refusal(bound) or bound

    def check(
        self,
        table: TableDescription,
        case: TypeCase,
        term: FilterTerm,
        values: Sequence[str | None],
    ) -> None:
        """Compare our verdicts with PostgreSQL's."""
        expected = self.plain(case.type, values, term)
        bound = self._bound(table, term)
        if isinstance(expected, psycopg.Error):
            # What PostgreSQL can not evaluate was refused, in its words or in the protocol's.
            assert isinstance(bound, SubscriptionRefusedError), (term, expected)
            text = (expected.diag.message_primary or "").split(":")[0]
            ours = ("operator does not exist", "requires a text-compatible column", "not an array")
            assert any(words in str(bound) for words in (text, *ours)), (text, str(bound))
            return
        assert isinstance(bound, BoundParameters), (term, expected, str(bound))
        relation = Relation(
            table.oid,
            table.schema,
            table.name,
            table.replica_identity,
            tuple(RelationColumn(c.name, c.type_oid, -1, False) for c in table.columns),
        )
        compiled = compile_filter(bound.terms, table, relation)
        built = self.built(table, values, bound.terms[0])
        assert built == expected, (term, values, built, expected)
        for value, answer in zip(values, expected, strict=True):
            verdict = compiled.decide(("1", value))
            if not compiled.sql_terms:
                assert verdict is (Verdict.YES if answer else Verdict.NO), (term, value, answer)
            elif verdict is Verdict.NO:
                assert not answer, (term, value, answer)
            else:
                assert verdict is Verdict.YES


@pytest.fixture(scope="module")
def oracle(postgres_cluster: TestCluster) -> Iterator[Oracle]:
    url = postgres_cluster.create_database()
    with (
        asyncio.Runner() as runner,
        psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection,
    ):
        connection.execute(_SETUP.encode())
        asynchronous = runner.run(
            AsyncConnection.connect(url, autocommit=True, prepare_threshold=None)
        )
        yield Oracle(connection, asynchronous, runner)
        runner.run(asynchronous.close())
    postgres_cluster.drop_database(url)


def _in_literal(constants: Sequence[str | None]) -> str:
    quoted = [
        "NULL" if c is None else '"' + c.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for c in constants
    ]
    return "{" + ",".join(quoted) + "}"


def _accepted(oracle: Oracle, case: TypeCase, name: str) -> list[str]:
    equal = [FilterTerm(name, FilterOperator.EQ, constant) for constant in case.constants]
    answers = [oracle.plain(case.type, [], term) for term in equal]
    return [
        term.value
        for term, answer in zip(equal, answers, strict=True)
        if not isinstance(answer, psycopg.Error)
    ]


def _terms(oracle: Oracle, case: TypeCase, name: str) -> Iterator[tuple[str, str]]:
    for operator in case.operators:
        for constant in case.constants:
            yield operator, constant
    accepted = _accepted(oracle, case, name)
    for listed in ([], accepted[:1], accepted, [None, *accepted], [*accepted[:1], "\\"]):
        yield "in", _in_literal(listed)
    for keyword in ("null", *(("true", "false", "unknown") if case.type == "bool" else ())):
        yield "is", keyword


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.declared or case.type)
def test_every_operator_answers_as_postgresql_does(oracle: Oracle, case: TypeCase) -> None:
    table = oracle.describe(case.declared or case.type)
    name = table.columns[1].name
    values = oracle.printed(case.declared or case.type, case.values)
    for operator, constant in _terms(oracle, case, name):
        for negated in (False, True):
            term = FilterTerm(name, FilterOperator(operator), constant, negated)
            oracle.check(table, case, term, values)


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
_RANDOM = {
    "int4": st.integers(-(2**31), 2**31 - 1).map(str),
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "numeric": st.decimals(allow_nan=True, allow_infinity=True, places=4)
    .map(str)
    .filter(lambda text: "sNaN" not in text and text != "-NaN"),
    "text": _TEXT,
    "uuid": st.uuids().map(str),
    "date": st.dates().map(str),
    "timestamp": st.datetimes().map(str),
    "timestamptz": st.builds("{}+{:02}".format, st.datetimes(), st.integers(0, 14)),
}


@pytest.fixture(scope="module")
def random_tables(oracle: Oracle) -> dict[str, TableDescription]:
    """One table per type, its row type kept."""
    described = {}
    for place, name in enumerate(_RANDOM):
        described[name] = oracle.describe(name, table=f"random_{place}")
    return described


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_values_are_judged_as_postgresql_judges_them(
    oracle: Oracle, random_tables: dict[str, TableDescription], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(sorted(_RANDOM)))
    values = data.draw(st.lists(_RANDOM[kind], min_size=1, max_size=6))
    constant = data.draw(st.one_of(st.sampled_from(values), _RANDOM[kind], _TEXT))
    operator = data.draw(st.sampled_from([*COMPARISONS, "in"]))
    if operator == "in":
        constant = _in_literal([constant, *values[:1]])
    table = random_tables[kind]
    term = FilterTerm(
        table.columns[1].name, FilterOperator(operator), constant, data.draw(st.booleans())
    )
    oracle.check(table, TypeCase(kind, values, ()), term, oracle.printed(kind, values))
