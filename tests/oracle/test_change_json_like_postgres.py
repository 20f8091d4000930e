"""A change's JSON shows what ``to_jsonb`` shows, for every type of the protocol's table.

Method: PostgreSQL prints each value (that is what the WAL carries) and says what ``to_jsonb``
makes of it; our encoder gets the printed text. Numbers are compared digit for digit.
"""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from psycopg import AsyncConnection

from fixtures.postgres import TestCluster
from heliograph.core.matching.change_json import ChangeEncoder
from heliograph.core.matching.table_description import TableDescription
from heliograph.core.replication.relation import Relation, RelationColumn
from heliograph.core.replication.row_change import ChangeKind
from heliograph.postgres.catalog import Catalog

pytestmark = pytest.mark.postgres

_SETUP = """
create extension citext;
create extension ltree;
create type mood as enum ('sad', 'Very Happy');
create type pair as (a int, "b ""c" text);
create type outer_pair as (first pair, list pair[], moment timestamptz, whole jsonb, price numeric);
create domain label as varchar(10);
create domain labels as text[];
create domain moment as timestamptz;
create publication everything for all tables;
"""

#: Columns of one table: type and values; NULL is always added.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "int2": ("-3", "0"),
    "int4": ("7",),
    "int8": ("9007199254740993", "-9223372036854775808"),
    "numeric(30,10)": ("12345678901234567890.5", "0", "-0.00000001"),
    "numeric": ("1e30", "0.1", "-5"),
    "float4": ("1.5", "1.1", "1e-40", "-0"),
    "float8": ("1e300", "1.5", "1e-7", "-0", "123456789012345680000"),
    "bool": ("t", "f"),
    "text": ("", "a", 'q"\\uo\n\t\x01te', "ä😀\u2028", "null"),
    "varchar(10)": ("abc",),
    "uuid": ("0f8fad5b-d9cb-469f-a165-70867728950e",),
    "inet": ("10.0.0.1/24", "::1"),
    "cidr": ("10.0.0.0/24",),
    "macaddr": ("08:00:2b:01:02:03",),
    "mood": ("Very Happy",),
    "date": ("2026-01-02", "infinity", "0044-03-15 BC", "12026-01-02"),
    "time": ("03:04:05.678901", "24:00"),
    "timetz": ("03:04:05+02",),
    "timestamp": ("2026-01-02 03:04:05.678901", "-infinity", "0044-03-15 10:00 BC", "12026-01-02"),
    "timestamptz": ("2026-01-02 03:04:05.678901+02", "infinity", "0044-03-15 10:00 BC"),
    "moment": ("2026-01-02 03:04:05+02",),
    "interval": ("1 day 02:03:04", "-1 year"),
    "json": ('{"b":1,\n "a" : [1,2.50], "c": "\\u00e4\\\\ud800"}', "null", '"x"'),
    "jsonb": ('{"b":1, "a":[1,2]}', "null", '"x\\u00e4"'),
    "int4[]": ("{1,NULL,3}", "{}", "{{1,2},{3,4}}", "[2:3]={1,2}"),
    "text[]": ('{a,"b,c",NULL,"NULL"," x ","q\\"\\\\"}', '{""}'),
    "numeric[]": ("{1.50,NaN,Infinity}",),
    "float8[]": ("{1e300,NaN,-0}",),
    "bool[]": ("{t,f,NULL}",),
    "timestamptz[]": ('{"2026-01-02 03:04:05+02",infinity}',),
    "bytea[]": ('{"\\\\xdead"}',),
    "jsonb[]": ('{"{\\"a\\": [1]}",NULL}',),
    "box[]": ("{(3,4),(1,2);(7,8),(5,6)}",),
    "point[]": ('{"(1,2)"}',),
    "mood[]": ('{"Very Happy"}',),
    "label": ("abc",),
    "labels": ("{a,b}",),
    "pair": ("(1,x)", '(,"a ""b\\\\c, ()")', '(,"")', "(,)"),
    "pair[]": ('{"(1,x)","(,)",NULL}',),
    "outer_pair": (
        '("(1,x)","{""(2,\\\\""y z\\\\"")""}","2026-01-02 03:04:05+00","{""a"": 1}",1.50)',
        "(,,,,NaN)",
    ),
    "int4range": ("[1,5)", "empty"),
    "int4multirange": ("{[1,5),[7,9)}",),
    "money": ("12.34",),
    "point": ("(1,2)",),
    "tsvector": ("a b",),
    "tsquery": ("a & b",),
    "bit(4)": ("1010",),
    "varbit": ("10101",),
    "oid": ("1",),
    "name": ("x",),
    '"char"': ("a",),
    "pg_lsn": ("16/B374D848",),
    "int2vector": ("1 2",),
    "citext": ("Abc",),
    "ltree": ("a.b",),
}

#: Where the protocol, or we, show a column differently from ``to_jsonb``.
_DIFFERENT = (
    ("bytea", "\\xdeadbeef", '"deadbeef"'),
    ("char(4)", "x", '"x"'),
    ("numeric", "NaN", "null"),
    ("numeric", "-Infinity", "null"),
    ("float8", "Infinity", "null"),
    ("float4", "NaN", "null"),
    ("json", '{"a":1,"a":"\\ud800"}', '{"a":1,"a":"\\ufffd"}'),
)


class Shown:
    """One database, and what our encoder makes of its values."""

    def __init__(self, connection: psycopg.Connection, url: str) -> None:
        self.connection = connection
        self._url = url

    def describe(self, declared: str) -> TableDescription:
        self.connection.execute("drop table if exists shown")
        self.connection.execute(f'create table shown (id int primary key, "a ""b" {declared})')
        row = self.connection.execute("select 'shown'::regclass::oid").fetchone()
        assert row is not None

        async def ask() -> TableDescription | None:
            async with await AsyncConnection.connect(self._url) as connection:
                return await Catalog("everything").describe(connection, row[0])

        table = asyncio.run(ask())
        assert table is not None
        return table

    def printed(self, declared: str, value: str | None) -> tuple[str | None, str]:
        """Return what the WAL would carry and what ``to_jsonb`` says."""
        row = self.connection.execute(
            f"select case when %s::text is not null then concat(v) end, to_jsonb(v)::text"
            f" from (select %s::text::{declared}) as x(v)".encode(),
            (value, value),
        ).fetchone()
        assert row is not None
        return row[0], row[1] or "null"


@pytest.fixture(scope="module")
def shown(postgres_cluster: TestCluster) -> Iterator[Shown]:
    url = postgres_cluster.create_database()
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(_SETUP.encode())
        yield Shown(connection, url)
    postgres_cluster.drop_database(url)


@pytest.fixture(scope="module")
def outer_table(shown: Shown) -> TableDescription:
    return shown.describe("outer_pair")


def _encoded(table: TableDescription, value: str | None) -> str:
    relation = Relation(
        table.oid,
        table.schema,
        table.name,
        table.replica_identity,
        tuple([RelationColumn(c.name, c.type_oid, -1, False) for c in table.columns]),
    )
    encoder = ChangeEncoder(table, relation, [table.columns[1].name])
    return encoder.encode(ChangeKind.INSERT, ("1", value), None, 0).decode()


def _exactly(value: object) -> str:
    """Write decoded JSON so that equal means equal digits, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, default=lambda number: f"number {number}")


def _decoded(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@pytest.mark.parametrize("declared", _COLUMNS)
def test_values_are_shown_as_to_jsonb_shows_them(shown: Shown, declared: str) -> None:
    table = shown.describe(declared)
    for value in (*_COLUMNS[declared], None):
        printed, expected = shown.printed(declared, value)
        encoded = _encoded(table, printed)
        assert "\n" not in encoded
        record = _decoded(encoded)["record"]
        assert _exactly(record['a "b']) == _exactly(_decoded(expected)), (value, printed)


@pytest.mark.parametrize(("declared", "value", "expected"), _DIFFERENT)
def test_known_differences_are_exactly_these(
    shown: Shown, declared: str, value: str, expected: str
) -> None:
    table = shown.describe(declared)
    row = shown.connection.execute(
        f"select concat(%s::text::{declared})".encode(), (value,)
    ).fetchone()
    assert row is not None
    assert f'"record":{{"a \\"b":{expected}}}' in _encoded(table, row[0])


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.none() | _TEXT, max_size=4), number=st.none() | st.integers(-9, 9))
def test_arrays_and_composites_of_any_text_are_shown_as_to_jsonb_shows_them(
    shown: Shown, outer_table: TableDescription, items: list[str | None], number: int | None
) -> None:
    nested = shown.connection.execute(
        "select concat(v), to_jsonb(v)::text"
        "  from (select row(row(%s::int, %s::text)::pair,"
        "                   array(select row(1, t)::pair from unnest(%s::text[]) as u(t)),"
        "                   null, null, null)::outer_pair) as x(v)",
        (number, items[0] if items else None, items),
    ).fetchone()
    assert nested is not None
    record = json.loads(_encoded(outer_table, nested[0]))["record"]
    assert record['a "b'] == json.loads(nested[1])
