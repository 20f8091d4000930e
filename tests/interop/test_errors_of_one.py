"""Law 4: what goes wrong for one subscriber changes nothing for another."""

import psycopg
import pytest

from fixtures.raw_client import BOB, connected, table

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

ROWS = 300

# The claim `trouble` says what goes wrong while judging for its bearer.
SCHEMA = """
create function trouble(divisor int) returns bool language plpgsql volatile as $$ begin
  case auth.jwt() ->> 'trouble'
    when 'raise' then raise exception 'no';
    when 'divide' then return 10 / divisor > 0;
    when 'several rows' then return (select true from generate_series(1, 2));
    when 'write' then insert into public.numbers values (-1, 0, null);
    when 'become' then perform set_config('role', 'service_role', true);
    when 'endless' then perform pg_sleep(60);
    when 'lost' then raise exception 'as if the connection broke' using errcode = '08006';
    when 'cancel' then perform pg_terminate_backend(pg_backend_pid());
    else return true;
  end case;
  return true;
end $$;
create table numbers (id int primary key, divisor int, owner uuid);
alter table numbers enable row level security;
create policy p on numbers for select to authenticated
  using (trouble(divisor) and owner = '00000000-0000-0000-0000-00000000000b');
alter table numbers replica identity full;
alter publication supabase_realtime add table numbers;
"""

TROUBLES = ["raise", "divide", "several rows", "write", "become", "endless", "lost", "cancel"]


@pytest.mark.security
async def test_every_error_stays_with_the_subscriber_who_causes_it(server):
    server.sql(SCHEMA)
    async with (
        connected(server) as client,
        connected(server) as troubled,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        await client.join("good", server.token(BOB), table("numbers"))
        for trouble in TROUBLES:
            token = server.token(BOB, trouble=trouble)
            await troubled.join(trouble, token, table("numbers"))
        # The policy does not ask who this is.
        await troubled.join("no uuid", server.token("nobody"), table("numbers"))
        for number in range(ROWS):
            owner = BOB if number % 3 else None
            await sql.execute(
                "insert into numbers values (%s, %s, %s)", (number, number % 5, owner)
            )
        await client.until(lambda: len(client.changes("good")) >= ROWS * 2 // 3, 60)
        seen = [change["record"]["id"] for change in client.changes("good")]
        assert seen == [number for number in range(ROWS) if number % 3]
        assert [said["status"] for said in client.systems("good")] == ["ok"]
        # Rows that raise for one subscriber are denied to it; the others arrive.
        divided = [number for number in range(ROWS) if number % 3 and number % 5]
        await troubled.until(lambda: len(troubled.changes("divide")) >= len(divided), 60)
        assert [c["record"]["id"] for c in troubled.changes("divide")] == divided
        await troubled.until(lambda: len(troubled.changes("no uuid")) >= len(seen), 60)
        for trouble in set(TROUBLES) - {"divide"}:
            assert troubled.changes(trouble) == []
        # What was not the row's fault is not silent.
        for trouble in ("endless", "lost"):
            await troubled.until(lambda topic=trouble: len(troubled.systems(topic)) > 1, 60)
            assert troubled.systems(trouble)[1]["status"] == "error"


@pytest.mark.security
async def test_many_slow_filters_of_one_client_leave_the_others_their_connections(server):
    server.sql(
        "create table texts (id int primary key, body text)",
        "create table chat (id int primary key, body text)",
        "alter table texts enable row level security",
        "alter table chat enable row level security",
        "create policy p on texts for select to authenticated using (true)",
        "create policy p on chat for select to authenticated using (id > 0)",
        "alter publication supabase_realtime add table texts, chat",
    )
    count = 40
    async with (
        connected(server) as hostile,
        connected(server) as other,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as sql,
    ):
        for number in range(count):
            # Each has a lane of its own, and takes some half a second for the text below.
            slow = rf"body=match.^(.+)(.+)\1\2\1x$|^{number}$"
            await hostile.join(f"h{number}", server.token(BOB), table("texts", filter=slow))
        await other.join("chat", server.token("other"), table("chat"))
        # PostgreSQL judges this filter, too: it waits for no more than one of the slow ones.
        filtered = table("chat", filter="body=match.^h")
        await other.join("filtered", server.token("other"), filtered)
        for number in range(1, 4):
            await sql.execute("insert into texts values (%s, %s)", (number, "ab" * 280 + "cx"))
            await sql.execute("insert into chat values (%s, 'hello')", (number,))
            for topic in ("chat", "filtered"):
                await other.until(
                    lambda topic=topic, number=number: len(other.changes(topic)) == number, 60
                )
        # The others' rows were judged while most of those of the hostile client wait.
        assert server.metrics()['heliograph_queue_depth{queue="lanes"}'] > count
        assert other.errors("chat") == other.errors("filtered") == []


async def test_policies_that_fail_on_every_row_are_refused_as_if_there_was_no_such_table(server):
    server.sql(
        "create table texts (id int primary key, body text)",
        "alter table texts enable row level security",
        # PostgreSQL divides while it plans: every SELECT of the role raises, whatever the rows.
        "create policy p on texts for select to authenticated using (id = 7 or 1 / 0 = 1)",
        "alter publication supabase_realtime add table texts",
    )
    async with connected(server) as client:
        said = await client.join("texts", server.token(BOB), table("texts"))
    assert said["status"] == "error"
    assert said["message"].startswith("Unable to subscribe to changes with given parameters.")
    [logged] = [line for line in server.log() if line["event"] == "policies_not_usable"]
    assert logged["reason"] == "22012"
