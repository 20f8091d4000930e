"""S19: whoever is judged for next finds nothing of the one before, however that one ended.

Many tasks judge for different users and roles over two connections; of a good part the statement
raises, takes too long, or is cancelled at any moment, and policies try to leave settings behind.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter

import psycopg
import pytest

from heliograph.errors import JudgementUnavailableError
from heliograph.postgres.judge import Judge
from heliograph.postgres.judge_statement import RowBatch, build_statement
from heliograph.postgres.migrate import migrate
from heliograph.postgres.rights_state import RightsQuestion

pytestmark = [pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio]

RIGHTS = RightsQuestion(reads_definitions=False)
SUBJECTS = [f"00000000-0000-0000-0000-{number:012}" for number in range(1, 9)]
CONNECTIONS = 2

SCHEMA = """
create table notes (id int primary key, owner uuid, told text);
create function leave_behind() returns bool language plpgsql volatile as $$ begin
  perform set_config('request.jwt.claims',
    '{"sub": "00000000-0000-0000-0000-000000000001", "role": "left"}', false);
  perform set_config('request.jwt.claim.sub', '00000000-0000-0000-0000-000000000001', false);
  perform set_config('request.headers', '{"x": "left"}', false);
  perform set_config('search_path', 'left_behind', false);
  perform set_config('role', 'service_role', false);
  return true;
end $$;
create function slow() returns bool language plpgsql volatile as
  $$ begin perform pg_sleep(60); return true; end $$;
"""

#: Whether the row's owner is who asks, and the row's text what is set for who asks.
POLICY = (
    "owner = auth.uid() and told = current_user || ' ' || auth.role() || ' ' ||"
    " coalesce(current_setting('request.headers', true), '') || ' ' ||"
    " coalesce(current_setting('request.jwt.claim.sub', true), '') || ' ' ||"
    " current_setting('search_path')"
)

#: What else is asked in the same transaction, by how the judgement then ends.
ENDINGS = {
    "well": "true",
    "settings": "leave_behind()",
    "error": "10 / (id - id) > 0",
    "settings and error": "case when leave_behind() then 10 / (id - id) > 0 end",
    "timeout": "leave_behind() and slow()",
}


async def prepared(url):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await migrate(connection)
        await connection.execute(SCHEMA)
        cursor = await connection.execute("select 'notes'::regclass::oid::int")
        return (await cursor.fetchone())[0]


def batch(oid, policy, rows):
    statement = build_statement(
        table=(oid, "public", "notes"), policy=policy, filters=(), reads_tables=False
    )
    return RowBatch(statement, rows)


async def ask(judge, oid, role, subject, ending):
    """Judge one row of everybody; tell whether exactly the own one is seen."""
    told = f"{role} {role} {{}}  public, extensions"
    rows = [f'({number},{owner},"{told}")' for number, owner in enumerate(SUBJECTS)]
    claims = json.dumps({"sub": subject, "role": role})
    batches = [batch(oid, POLICY, rows), batch(oid, ENDINGS[ending], rows[:1])]
    judgement = await judge.judge(role, claims, batches, RIGHTS)
    return [answer == (True,) for answer in judgement.answers[0]] == [
        owner == subject for owner in SUBJECTS
    ]


async def interleave(judge, oid, rng, count):
    """Judge ``count`` times for all users at once; return how the judgements ended."""
    ended = Counter()
    endings = rng.choices([*ENDINGS], [20, 20, 10, 10, 0.2], k=count)
    work = [
        (rng.choice(["anon", "authenticated"]), rng.choice(SUBJECTS), ending) for ending in endings
    ]

    async def worker():
        while work:
            role, subject, ending = work.pop()
            asking = asyncio.create_task(ask(judge, oid, role, subject, ending))
            if rng.random() < 0.4:
                for _ in range(rng.randint(0, 40)):
                    await asyncio.sleep(0)
                asking.cancel()
            try:
                assert await asking, (role, subject, ending)
                ended[ending] += 1
            except asyncio.CancelledError:
                ended["cancelled"] += 1
            except JudgementUnavailableError as error:
                assert error.timed_out
                ended["timed out"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS * 3):
            group.create_task(worker())
    return ended


async def assert_connections_are_clean(judge):
    """Look at every connection of the pool, outside of a judging transaction."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = await stack.enter_async_context(judge._pool.connection())
            cursor = await connection.execute(
                "select current_user = session_user,"
                " coalesce(current_setting('request.jwt.claims', true), ''),"
                " coalesce(current_setting('request.jwt.claim.sub', true), ''),"
                " coalesce(current_setting('request.headers', true), ''),"
                " current_setting('search_path'), current_setting('statement_timeout')"
            )
            found = await cursor.fetchone()
            assert found == (True, "", "", "", '""', "0")


@pytest.mark.parametrize(
    "count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)], ids=["1000", "10000"]
)
async def test_no_identity_is_left_for_the_next_judgement_whatever_became_of_the_last(
    postgres_url, count
):
    oid = await prepared(postgres_url)
    rng = random.Random(count)
    judge = Judge(postgres_url, connections_max=CONNECTIONS, timeout_s=0.5)
    await judge.open()
    try:
        ended = await interleave(judge, oid, rng, count)
        await assert_connections_are_clean(judge)
    finally:
        await judge.close()
    for ending in ("well", "settings", "error", "settings and error", "cancelled"):
        assert ended[ending] > count / 50, ended
