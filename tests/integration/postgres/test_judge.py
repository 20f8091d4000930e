"""Judging with errors: which rows are denied, what it costs, and what was read all the same."""

import json
import logging

import psycopg
import pytest
import pytest_asyncio

from fixtures.raw_client import ALICE
from heliograph.errors import JudgementUnavailableError, RoleUnusableError
from heliograph.postgres.judge import Judge
from heliograph.postgres.judge_parts import JudgementInParts
from heliograph.postgres.judge_statement import RowBatch, build_statement
from heliograph.postgres.migrate import migrate
from heliograph.postgres.rights_state import RightsQuestion

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

CLAIMS = json.dumps({"sub": ALICE, "role": "authenticated"})
RIGHTS = RightsQuestion(reads_definitions=True)

SCHEMA = """
create table numbers (id int primary key, divisor int, owner uuid);
create table members (user_id uuid primary key);
create function fail(state text) returns bool language plpgsql stable as
  $$ begin raise exception 'as asked' using errcode = state; end $$;
create function slow() returns bool language plpgsql stable as
  $$ begin perform pg_sleep(30); return true; end $$;
create function is_member() returns bool language plpgsql stable security definer
  set search_path = '' as
  $$ begin return exists (select from public.members where user_id = auth.uid()); end $$;
insert into members values ('00000000-0000-0000-0000-00000000000a');
"""


@pytest_asyncio.fixture
async def database(any_cluster, make_database):
    """URL of a migrated database with the tables above."""
    url = make_database(any_cluster)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await migrate(connection)
        await connection.execute(SCHEMA)
        cursor = await connection.execute("select 'numbers'::regclass::oid::int")
        oid = (await cursor.fetchone())[0]
    return url, oid


def asking(oid, policy, rows):
    statement = build_statement(
        table=(oid, "public", "numbers"), policy=policy, filters=(), reads_tables=True
    )
    return RowBatch(statement, [f"({number},{divisor},)" for number, divisor in rows])


async def judged(url, batches, *, role="authenticated", claims=CLAIMS, timeout_s=5.0):
    judge = Judge(url, connections_max=1, timeout_s=timeout_s)
    await judge.open()
    try:
        return await judge.judge(role, claims, batches, RIGHTS)
    finally:
        await judge.close()


class CountingConnection(psycopg.AsyncConnection):
    """Counts pipelines: each is one round trip."""

    round_trips = 0

    def pipeline(self):
        self.round_trips += 1
        return super().pipeline()


DIVIDES = "10 / divisor > 1"


@pytest.mark.parametrize(
    ("bad", "round_trips_max"),
    [
        (set(), 1),
        ({0}, 18),
        ({1}, 18),
        ({99}, 18),
        ({137}, 18),
        ({199}, 18),
        ({3, 150}, 36),
        (set(range(100, 200)), 118),
        (set(range(200)), 208),
    ],
)
async def test_the_rows_that_raise_are_found_in_few_round_trips(database, bad, round_trips_max):
    url, oid = database
    rows = [(number, 0 if number in bad else 1 + number % 20) for number in range(200)]
    batch = asking(oid, DIVIDES, rows)
    async with await CountingConnection.connect(url, autocommit=True) as connection:
        await connection.execute("begin")
        parts = JudgementInParts(connection)
        answers = await parts.judge(batch)
        await parts.finish()
        assert connection.round_trips <= round_trips_max
        assert [answer == () for answer in answers] == [row in bad for row in range(200)]
        assert [answer for answer in answers if answer] == [
            (10 // divisor > 1,) for _, divisor in rows if divisor
        ]
        assert [error.sqlstate for error in parts.errors] == ["22012"] * len(bad)
        # The transaction goes on.
        await connection.execute("select 1")


@pytest.mark.parametrize(
    "sqlstate", ["22012", "42501", "P0001", "21000", "23514", "0A000", "25006"]
)
async def test_an_error_that_a_row_causes_denies_that_row_only(database, sqlstate, caplog):
    url, oid = database
    policy = f"case when divisor = 0 then fail('{sqlstate}') else true end"
    batches = [
        asking(oid, policy, [(number, number % 7) for number in range(50)]),
        asking(oid, "divisor > 3", [(1, 2), (2, 5)]),
    ]
    caplog.set_level(logging.WARNING)
    judgement = await judged(url, batches)
    expected = tuple(() if number % 7 == 0 else (True,) for number in range(50))
    assert judgement.answers == (expected, ((False,), (True,)))
    assert {error.sqlstate for error in judgement.row_errors} == {sqlstate}
    assert {error.table_oid for error in judgement.row_errors} == {oid}
    assert [record for record in caplog.records if record.name.startswith("psycopg")] == []


@pytest.mark.parametrize(
    "sqlstate", ["08006", "40001", "53200", "55P03", "57P01", "58030", "XX000"]
)
async def test_an_error_that_no_row_causes_denies_nobody(database, sqlstate):
    url, oid = database
    batch = asking(oid, f"case when divisor = 0 then fail('{sqlstate}') end", [(1, 1), (2, 0)])
    with pytest.raises(JudgementUnavailableError, match="judging failed") as raised:
        await judged(url, [batch])
    assert not raised.value.timed_out


async def test_a_judgement_that_takes_too_long_is_told_from_one_that_failed(database):
    url, oid = database
    with pytest.raises(JudgementUnavailableError) as raised:
        await judged(url, [asking(oid, "slow()", [(1, 1)])], timeout_s=0.2)
    assert raised.value.timed_out


async def test_a_judgement_in_parts_that_takes_too_long_is_a_timeout(database):
    # Each statement stays below the timeout, but every row raises and costs one of its own.
    url, oid = database
    policy = "pg_sleep(0.1)::text = '' and fail('22012')"
    batch = asking(oid, policy, [(number, 1) for number in range(40)])
    with pytest.raises(JudgementUnavailableError) as raised:
        await judged(url, [batch], timeout_s=0.2)
    assert raised.value.timed_out


async def test_what_was_read_is_known_although_other_rows_raised(database):
    url, oid = database
    policy = "is_member() and 10 / divisor > 0"
    judgement = await judged(url, [asking(oid, policy, [(1, 1), (2, 0), (3, 1)])])
    assert judgement.answers == (((True,), (), (True,)),)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("select 'members'::regclass::oid::int")
        assert (await cursor.fetchone())[0] in judgement.relations_read


async def test_claims_that_no_policy_understands_deny_every_row(database):
    url, oid = database
    batch = asking(oid, "owner = (select auth.uid())", [(number, 1) for number in range(20)])
    judgement = await judged(url, [batch], claims=json.dumps({"sub": "not-a-uuid"}))
    assert judgement.answers == (((),) * 20,)
    assert len(judgement.row_errors) == 20


async def test_a_role_that_can_not_be_assumed_is_no_error_of_a_row(database):
    url, oid = database
    with pytest.raises(RoleUnusableError, match="nobody_at_all"):
        await judged(url, [asking(oid, "true", [(1, 1)])], role="nobody_at_all")


async def test_nobody_stands_in_for_a_role_once_policies_apply_to_it(database):
    url, oid = database
    judge = Judge(url, connections_max=1, stand_ins={"service_role": "authenticated"})
    await judge.open()
    try:
        with pytest.raises(RoleUnusableError, match="restart"):
            await judge.judge("service_role", CLAIMS, [asking(oid, "true", [(1, 1)])], RIGHTS)
        judgement = await judge.judge("service_role", CLAIMS, [asking(oid, None, [(1, 1)])], RIGHTS)
        assert judgement.answers == (((True,),),)
    finally:
        await judge.close()


async def test_a_judgement_is_closed_by_a_snapshot_behind_its_answers(database):
    url, oid = database
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        first = await judged(url, [asking(oid, "true", [(1, 1)])])
        await connection.execute("alter function is_member() cost 7")
        second = await judged(url, [asking(oid, DIVIDES, [(1, 0)])])
    for judgement in (first, second):
        assert judgement.closing.snapshot.xmax >= judgement.snapshot.xmax
    assert first.closing.general != second.closing.general
    assert second.closing.insert_lsn > first.closing.insert_lsn


async def test_a_connection_judges_on_however_often_a_policy_raises(database):
    # psycopg prepares what it executed five times, and believes so even if it was skipped.
    url, oid = database
    judge = Judge(url, connections_max=1)
    await judge.open()
    try:
        for _ in range(12):
            batch = asking(oid, DIVIDES, [(1, 1), (2, 0), (3, 10)])
            judgement = await judge.judge("authenticated", CLAIMS, [batch], RIGHTS)
            assert judgement.answers == (((True,), (), (False,)),)
    finally:
        await judge.close()


async def test_joins_leave_half_of_the_connections_to_judgements(database):
    url, oid = database
    judge = Judge(url, connections_max=2, timeout_s=0.3)
    await judge.open()
    try:
        async with judge.as_role("authenticated", CLAIMS):
            with pytest.raises(JudgementUnavailableError) as raised:
                async with judge.as_role("authenticated", CLAIMS):
                    pytest.fail("a second join has a connection")
            assert not raised.value.timed_out
            judgement = await judge.judge(
                "authenticated", CLAIMS, [asking(oid, "true", [(1, 1)])], RIGHTS
            )
            assert judgement.answers == (((True,),),)
            # The stream, which checks one table after the other, does not wait for joins.
            async with judge.as_role("authenticated", CLAIMS, is_join=False):
                pass
        async with judge.as_role("authenticated", CLAIMS):
            pass
    finally:
        await judge.close()
