"""Trying a table's policies the way joins and judgements do, on rows that the table has now.

The statement, the login and the rules are the judge's: as the role, READ ONLY, with its timeout,
rolled back. The rows are read by the owner's login and handed over as texts, so nothing that a
policy hides is shown to anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql

from heliograph import limits
from heliograph.core.matching.table_rights import TableRights
from heliograph.errors import JudgementUnavailableError, RoleUnusableError
from heliograph.postgres.catalog import PublishedTable
from heliograph.postgres.judge import Judge
from heliograph.postgres.judge_statement import RowBatch, build_statement, is_usable
from heliograph.postgres.rights_state import RightsQuestion

_SAMPLE: Final = sql.SQL("""
select s.heliograph_row from (
  select (heliograph_table.*)::text as heliograph_row from {} as heliograph_table limit {}
) as s where pg_catalog.octet_length(s.heliograph_row) <= {}
""")


@dataclass(frozen=True, slots=True)
class TrialIdentity:
    """Who the policies are tried as.

    Attributes:
        label: For people: ``anon``, ``the given token``.
        role: Database role.
        claims_json: What ``request.jwt.claims`` is set to.
    """

    label: str
    role: str
    claims_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTrial:
    """What became of one table's policies for one identity.

    Attributes:
        table: Qualified name.
        label: Whose trial it was.
        rows: Rows that were judged.
        shown: Rows that the policies showed.
        took_s: Seconds that judging them took.
        refusal: SQLSTATE with which the policies fail before there is a row; None if not.
        row_errors: SQLSTATEs that rows raised, each once.
        row_error_count: Rows that raised.
        timed_out: Whether judging ran into its timeout.
        failure: Why it could not be tried at all; None if it was.
    """

    table: str
    label: str
    rows: int = 0
    shown: int = 0
    took_s: float = 0.0
    refusal: str | None = None
    row_errors: tuple[str, ...] = ()
    row_error_count: int = 0
    timed_out: bool = False
    failure: str | None = None


async def sample_rows(connection: AsyncConnection[Any], table: PublishedTable) -> Sequence[str]:
    """Return some rows of a table as composite texts; see ``DOCTOR_SAMPLE_ROWS_MAX``.

    Args:
        connection: An autocommit connection of a login that may SELECT.
        table: Which table.
    """
    query = _SAMPLE.format(
        sql.Identifier(table.schema, table.name),
        sql.Literal(limits.DOCTOR_SAMPLE_ROWS_MAX),
        sql.Literal(limits.DOCTOR_SAMPLE_ROW_BYTES_MAX),
    )
    async with connection.transaction():
        await connection.execute("set transaction read only")
        # The judge's sessions read dates in this form, whatever the login's own settings are.
        await connection.execute("set local datestyle to 'ISO'")
        cursor = await connection.execute(query)
        return [str(row[0]) for row in await cursor.fetchall()]


async def try_policies(
    judge: Judge,
    table: PublishedTable,
    rights: TableRights,
    rows: Sequence[str],
    identity: TrialIdentity,
) -> PolicyTrial:
    """Judge rows as one identity; whatever fails is part of the answer.

    Args:
        judge: Open.
        table: Whose policies.
        rights: Of the identity's role on the table.
        rows: From `sample_rows`.
        identity: Who asks.
    """
    name = f"{table.schema}.{table.name}"
    statement = build_statement(
        table=(table.oid, table.schema, table.name),
        policy=rights.policy,
        filters=(),
        reads_tables=rights.reads_tables,
    )
    try:
        async with judge.as_role(identity.role, identity.claims_json) as connection:
            refusal = await is_usable(connection, statement)
        if refusal is not None:
            return PolicyTrial(table=name, label=identity.label, refusal=refusal)
        judgement = await judge.judge(
            identity.role,
            identity.claims_json,
            [RowBatch(statement, rows)],
            RightsQuestion(reads_definitions=False),
        )
    except JudgementUnavailableError as error:
        return PolicyTrial(
            table=name,
            label=identity.label,
            rows=len(rows),
            timed_out=error.timed_out,
            failure=None if error.timed_out else str(error),
        )
    except RoleUnusableError as error:
        return PolicyTrial(table=name, label=identity.label, failure=str(error))
    states = [error.sqlstate for error in judgement.row_errors]
    return PolicyTrial(
        table=name,
        label=identity.label,
        rows=len(rows),
        shown=sum(1 for answer in judgement.answers[0] if answer and answer[0]),
        took_s=judgement.took_s,
        row_errors=tuple(dict.fromkeys(states)),
        row_error_count=len(states),
    )
