"""What it costs that every judgement also reads what decides rights (visibility.md §6).

Usage: make bench NAME=rights_price. Compared within one run and in turns, as ratios of the median
time of one judgement: closed by a snapshot that reads nothing else, by one that reads roles and
memberships (a database with event triggers), and by one that reads every definition as well (one
without). Small: 5 tables in use, 20 functions in the database. Large: 50 tables, 1,000 functions.
"""

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _results import machine, write_results

from fixtures.postgres import binaries_of, run_test_cluster
from heliograph.postgres.judge import Judge
from heliograph.postgres.judge_statement import RowBatch, build_statement
from heliograph.postgres.migrate import migrate
from heliograph.postgres.rights_state import RightsQuestion

ROUNDS = 300
POSTGRES = 18
USER = "00000000-0000-0000-0000-00000000000a"
CLAIMS = json.dumps({"sub": USER, "role": "authenticated"})
SIZES = {"small": (5, 20), "large": (50, 1_000)}


@dataclass(frozen=True, slots=True)
class PositionOnly(RightsQuestion):
    """Reads what a judgement needed before: a snapshot and the position behind it."""

    def statement(self):
        return sql.SQL(
            "select pg_catalog.pg_current_snapshot()::text,"
            " pg_catalog.pg_current_wal_insert_lsn()::text, 0::bigint, ''"
        ), ()


async def make_schema(connection, tables, functions):
    await connection.execute(
        "create schema shop; grant usage on schema shop to authenticated; set search_path = shop"
    )
    for number in range(tables):
        await connection.execute(
            f"create table t{number} (id int primary key, owner uuid, a int, b text, c text);"
            f"alter table t{number} enable row level security;"
            f"create policy own on t{number} using (owner = (select auth.uid()))"
        )
    for number in range(functions):
        await connection.execute(
            f"create function f{number}(a int) returns int language sql return a + {number}"
        )
    await connection.execute("analyze")
    cursor = await connection.execute(
        "select oid::int from pg_class where relkind = 'r' and relnamespace = 'shop'::regnamespace"
        " order by oid"
    )
    return [row[0] for row in await cursor.fetchall()]


async def time_in_turns(judge, batch, questions):
    seconds = {name: [] for name in questions}
    for _ in range(ROUNDS):
        for name, question in questions.items():
            began = time.perf_counter()
            judgement = await judge.judge("authenticated", CLAIMS, [batch], question)
            assert judgement.answers == (((True,),) * len(batch.rows),)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(many) for name, many in seconds.items()}


async def measure(url, size):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await migrate(connection)
        oids = await make_schema(connection, *SIZES[size])
    questions = {
        "position only": PositionOnly(reads_definitions=False),
        "roles": RightsQuestion(reads_definitions=False),
        "definitions": RightsQuestion(reads_definitions=True, relations=tuple(oids)),
    }
    statement = build_statement(
        table=(oids[0], "shop", "t0"),
        policy="(owner = ( SELECT auth.uid() AS uid))",
        filters=(),
        reads_tables=False,
    )
    judge = Judge(url, connections_max=1)
    await judge.open()
    result = {}
    try:
        for rows in (1, 200):
            batch = RowBatch(statement, [f"({number},{USER},1,b,c)" for number in range(rows)])
            result[rows] = await time_in_turns(judge, batch, questions)
    finally:
        await judge.close()
    return result


def main():
    about, results = machine(POSTGRES), {}
    with run_test_cluster(binaries_of(POSTGRES)) as cluster:
        for size in SIZES:
            results[size] = asyncio.run(measure(cluster.create_database(), size))
    for size, by_rows in results.items():
        for rows, medians in by_rows.items():
            base = medians["position only"]
            said = ", ".join(f"{name} {medians[name] / base:.2f}" for name in medians)
            print(f"{size}, {rows} rows: {said} (1.00 = {base * 1000:.2f} ms)")
    write_results("rights_price", {**results, "machine": about})


if __name__ == "__main__":
    main()
