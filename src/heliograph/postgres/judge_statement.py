"""The question that PostgreSQL is asked: policies and filters over row versions from the WAL.

The row source is an array of composite texts, so nothing is read from the table itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import AsyncConnection, sql

from heliograph.core.matching.record_literal import array_literal
from heliograph.postgres.catalog_text import CatalogText
from heliograph.postgres.filter_sql import FilterExpression, identifier
from heliograph.postgres.row_errors import is_row_error

#: What `is_usable` returns where policies read a column that the row does not have.
UNDEFINED_COLUMN: Final = "42703"


@dataclass(frozen=True, slots=True)
class JudgementStatement:
    """A prepared question about rows of one table.

    Attributes:
        table_oid: The table.
        query: SQL whose last parameter is the array of composite texts; one result row per
            element, in order: first column the policies' answer, then one per filter term.
        parameters: The parameters before the last: constants of the filters.
        reads_tables: Whether the policies may read other relations, so that those must be asked
            for after the judgement.
        has_policy: Whether policies are asked, and not only filters.
    """

    table_oid: int
    query: sql.Composed
    parameters: tuple[str | list[str], ...]
    reads_tables: bool
    has_policy: bool = True


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Row versions of one table that wait for judgement.

    Attributes:
        statement: The question.
        rows: Composite texts (`record_literal`).
    """

    statement: JudgementStatement
    rows: Sequence[str]


#: One answer per result column; None is SQL NULL. An empty tuple: judging this row raised.
RowAnswer = tuple[bool | None, ...]


def parameters(statement: JudgementStatement, rows: Sequence[str]) -> tuple[object, ...]:
    """Return what is bound to a question about some rows.

    The array is written here: the driver's own way takes ten times as long for each row.
    """
    return (*statement.parameters, array_literal(rows))


def build_statement(
    *,
    table: tuple[int, str, str],
    policy: str | None,
    filters: Sequence[FilterExpression],
    reads_tables: bool,
) -> JudgementStatement:
    """Compose the question for one table and role.

    The row source is named like the table and yields its row type, so that a policy's text, as
    ``pg_get_expr`` prints it, means the same as on the table: column names, ``table.column`` in
    sub-selects and whole-row references.

    Args:
        table: oid, schema and name.
        policy: The policies' expression, deparsed with an empty search_path; None: all rows show.
        filters: Expressions over the row, with their parameters, asked only where the policies
            say yes (S14).
        reads_tables: See `JudgementStatement`.
    """
    oid, schema, name = table
    parameters: list[str | list[str]] = []
    columns: list[sql.Composable] = []
    for term in filters:
        columns.append(
            sql.SQL("case when heliograph_policy.shows then ({}) end").format(term.expression)
        )
        parameters.extend(term.parameters)
    source = sql.SQL("unnest(%s::text[]::{}[]) as {}").format(
        identifier(schema, name), identifier(name)
    )
    shows, has_policy = CatalogText(policy or "true"), policy is not None
    if not columns:
        query = sql.SQL("select ({}) from {}").format(shows, source)
        return JudgementStatement(oid, query, (), reads_tables, has_policy)
    # `offset 0` keeps the sub-select whole: the policies run once per row, before any filter.
    query = sql.SQL(
        "select heliograph_policy.shows, {} from {}"
        " cross join lateral (select ({}) as shows offset 0) as heliograph_policy"
    ).format(sql.SQL(", ").join(columns), source, shows)
    return JudgementStatement(oid, query, tuple(parameters), reads_tables, has_policy)


async def is_usable(connection: AsyncConnection, statement: JudgementStatement) -> str | None:
    """Try a question on no row, as the role: what fails here would fail on every row.

    Args:
        connection: From `Judge.as_role`.
        statement: The question.

    Returns:
        The SQLSTATE of the refusal; None when it works. Most are of class 42 (no such name, no
        privilege), others come of constants that the planner works out (``1 / 0``).
    """
    empty: list[str] = []
    try:
        await connection.execute(statement.query, (*statement.parameters, empty), prepare=False)
    except psycopg.Error as cause:
        if not is_row_error(cause):
            raise
        return cause.sqlstate
    return None
