"""The promises, seen from a socket: P1 (order), P2 (nothing that was private), P3 (subscribed)."""

import itertools
import json
import random
import time

import psycopg
import pytest

from fixtures.raw_client import ALICE, BOB, connected, stopped, table, write_until
from fixtures.waiting import wait_until
from heliograph import limits

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


SCHEMA = """
create table members (user_id uuid, org int, primary key (user_id, org));
create table notes (id int primary key, org int, owner uuid, is_public bool, body text);
create table twins (id int primary key, note int);
create function is_member(u uuid, o int) returns bool language plpgsql stable security definer
  set search_path = '' as
  $$ begin return exists (select from public.members where user_id = u and org = o); end $$;
alter table members enable row level security;
alter table notes enable row level security;
alter table twins enable row level security;
create policy p on notes for select to authenticated
  using (is_public or owner = (select auth.uid()) or is_member((select auth.uid()), org));
create policy p on twins for select to authenticated using (true);
alter table notes replica identity full;
alter table twins replica identity full;
alter publication supabase_realtime add table notes, twins;
"""


async def writer(server):
    return await psycopg.AsyncConnection.connect(server.database_url, autocommit=True)


async def publish_private_rows(sql, random_delays=None):
    """Insert 1,000 rows that only Alice may see, and publish each within a moment."""
    for number in range(1_000):
        async with sql.pipeline() as pipeline:
            await sql.execute(
                "insert into notes values (%s, 1, %s, false, 'SECRET')", (number, ALICE)
            )
            # Without it both statements would be one transaction, which has no private version.
            await pipeline.sync()
            if random_delays is not None:
                await sql.execute("select pg_sleep(%s)", (random_delays.uniform(0, 0.003),))
            await sql.execute(
                "update notes set is_public = true, body = 'open' where id = %s", (number,)
            )


@pytest.mark.security
@pytest.mark.parametrize("pace", ["at once", "random delays", "lagging reader"])
async def test_a_version_that_was_private_is_never_sent_however_soon_it_became_public(server, pace):
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        await bob.join("n", server.token(BOB), table("notes"))
        if pace == "lagging reader":
            with stopped(server):
                await publish_private_rows(sql)
        else:
            await publish_private_rows(sql, random.Random(7) if "random" in pace else None)
        await bob.until(lambda: len(bob.changes("n")) >= 1_000, 60)
        seen = [(change["type"], change["record"]["id"]) for change in bob.changes("n")]
        # An UPDATE: the row was committed before, as somebody else's.
        assert seen == [("UPDATE", number) for number in range(1_000)]
        assert "SECRET" not in json.dumps(bob.frames)


async def test_what_is_committed_right_after_subscribed_is_delivered(server):
    server.sql(SCHEMA)
    token = server.token(BOB)
    async with await writer(server) as sql:
        for first in range(0, 200, 50):
            async with connected(server) as bob:
                for number in range(first, first + 50):
                    said = await bob.join(f"t{number}", token, table("twins"))
                    assert said["message"] == "Subscribed to PostgreSQL"
                    await sql.execute("insert into twins values (%s, 0)", (number,))
                for number in range(first, first + 50):
                    await bob.until(lambda topic=f"t{number}": bob.changes(topic))
                    assert bob.changes(f"t{number}")[0]["record"]["id"] == number


async def test_1000_rapid_updates_of_one_row_come_in_their_order(server):
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        await bob.join("o", server.token(BOB), table("notes"))
        await sql.execute("insert into notes values (1, 1, null, true, '0')")
        async with sql.pipeline() as pipeline:
            for number in range(1, 1_001):
                await sql.execute("update notes set body = %s where id = 1", (str(number),))
                # Without it the whole pipeline would be one transaction.
                await pipeline.sync()
        await bob.until(lambda: len(bob.changes("o")) >= 1_001, 60)
        assert [change["record"]["body"] for change in bob.changes("o")] == [
            str(number) for number in range(1_001)
        ]


async def test_changes_of_one_channel_come_in_commit_order_over_all_its_tables(server):
    """And those of one transaction in the order of its statements."""
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        await bob.join("o", server.token(BOB), table("notes"), table("twins"))
        await sql.execute("insert into notes values (1, 1, null, true, '0')")
        await sql.execute("insert into twins values (0, 0)")
        expected = [("notes", "INSERT", "0"), ("twins", "INSERT", 0)]
        for number in range(1, 501):
            writes = [
                ("notes", "UPDATE", str(number), "update notes set body = %s where id = 1"),
                ("twins", "INSERT", number, "insert into twins values (%s, 0)"),
                ("twins", "UPDATE", 0, "update twins set note = note + 1 where id = %s"),
            ]
            # Every order of the three, so that no order of tables, kinds or keys will do.
            order = list(itertools.permutations(writes))[number % 6]
            async with sql.transaction():
                for name, kind, value, statement in order:
                    await sql.execute(statement, (value,))
                    expected.append((name, kind, value))
        await bob.until(lambda: len(bob.changes("o")) >= len(expected), 60)
        told = [
            (change["table"], change["type"], change["record"][names[change["table"]]])
            for names in [{"notes": "body", "twins": "id"}]
            for change in bob.changes("o")
        ]
        assert told == expected


async def test_a_membership_granted_later_does_not_reveal_an_older_version(each_server):
    server = each_server
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        await bob.join("m", server.token(BOB), table("notes"))
        await sql.execute("insert into notes values (1, 1, null, true, 'first')")
        await bob.until(lambda: bob.changes("m"))
        with stopped(server):
            await sql.execute("insert into notes values (2, 7, null, false, 'OLDER')")
            await sql.execute("update notes set body = 'newer' where id = 2")
            await sql.execute("insert into members values (%s, 7)", (BOB,))
        await sql.execute("insert into notes values (3, 1, null, true, 'last')")
        await bob.until(
            lambda: any((c.get("record") or {}).get("id") == 3 for c in bob.changes("m"))
        )
        assert "OLDER" not in json.dumps(bob.frames)
        assert any(said["message"].startswith("resync") for said in bob.systems("m"))


@pytest.mark.parametrize("membership_first", [True, False])
async def test_a_membership_and_the_row_it_opens_may_come_in_one_transaction(
    each_server, membership_first
):
    server = each_server
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        await bob.join("m", server.token(BOB), table("notes"))
        steps = [
            ("insert into members values (%s, 7)", (BOB,)),
            ("insert into notes values (2, 7, null, false, 'ours')", ()),
        ]
        async with sql.transaction():
            for statement, values in steps if membership_first else reversed(steps):
                await sql.execute(statement, values)
        await bob.until(lambda: bob.changes("m"))
        assert [change["record"]["id"] for change in bob.changes("m")] == [2]


async def test_a_policy_that_raises_for_one_user_changes_nothing_for_another(each_server):
    server = each_server
    server.sql(SCHEMA)
    async with connected(server) as client, await writer(server) as sql:
        await client.join("good", server.token(BOB), table("notes"))
        await client.join("bad", server.token("not-a-uuid"), table("notes"))
        for number in range(20):
            await sql.execute("insert into notes values (%s, 1, %s, false, 'x')", (number, BOB))
        await client.until(lambda: len(client.changes("good")) == 20)
        assert client.changes("bad") == []


@pytest.mark.security
async def test_a_revoked_column_is_missing_from_the_next_change(each_server):
    server = each_server
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        await bob.join("c", server.token(BOB), table("notes"))
        await sql.execute("insert into notes values (1, 1, null, true, 'seen')")
        # Revoked between its commit and its judgement, it would rightly be a resync.
        await bob.until(lambda: bob.changes("c"))
        await sql.execute("revoke select on notes from authenticated")
        await sql.execute("grant select (id, org, owner, is_public) on notes to authenticated")
        await sql.execute("insert into notes values (2, 1, null, true, 'HIDDEN')")
        await bob.until(lambda: len(bob.changes("c")) == 2)
        assert "body" not in bob.changes("c")[1]["record"]
        assert "HIDDEN" not in json.dumps(bob.frames)


@pytest.mark.security
async def test_a_table_without_row_security_is_withheld_from_all_but_the_service_role(server):
    server.sql("create table plain (id int primary key)")
    server.sql("alter publication supabase_realtime add table plain")
    async with connected(server) as client:
        refused = await client.join("p", server.token(BOB), table("plain"))
        missing = await client.join("q", server.token(BOB), table("absent"))
        served = await client.join("s", server.service_role_key, table("plain"))
        assert refused["status"] == "error"
        assert refused["message"].replace("plain", "absent") == missing["message"]
        assert served["message"] == "Subscribed to PostgreSQL"


KEYLESS = """
create table crew (user_id uuid, org int);
create function in_crew(u uuid, o int) returns bool language plpgsql stable security definer
  set search_path = '' as
  $$ begin return exists (select from public.crew where user_id = u and org = o); end $$;
create table papers (id int primary key, org int, body text);
alter table papers enable row level security;
create policy p on papers for select to authenticated using (in_crew((select auth.uid()), org));
alter publication supabase_realtime add table papers;
"""


async def test_a_membership_without_a_key_is_believed_for_new_rows_and_not_for_old_ones(server):
    """A table without a key can not be followed: its changes are in no stream of ours."""
    server.sql(KEYLESS)
    async with connected(server) as bob, await writer(server) as sql:
        await sql.execute("insert into crew values (%s, 1)", (BOB,))
        await bob.join("p", server.token(BOB), table("papers"))
        numbers = itertools.count(100)
        await write_until_seen(bob, sql, numbers)
        with stopped(server):
            await sql.execute("insert into papers values (30, 7, 'OLDER')")
            await sql.execute("insert into crew values (%s, 7)", (BOB,))
            old_at = time.monotonic() + limits.UNFOLLOWED_JUDGEMENT_AGE_S_MAX * 1.2
            await wait_until(lambda: time.monotonic() > old_at)
        await write_until_seen(bob, sql, numbers)
        assert "OLDER" not in json.dumps(bob.frames)
        assert set(bob.errors("p")) == {"resync: rights_changed"}
        assert not_followed(server) == 1


async def write_until_seen(client, sql, numbers):
    """Write rows until one of them is seen: nearly at once, unless the machine is very busy."""
    first = next(numbers)
    await write_until(
        client,
        lambda: any(change["record"]["id"] >= first for change in client.changes("p")),
        lambda number: sql.execute("insert into papers values (%s, 1, 'ours')", (number,)),
        itertools.islice(numbers, 3_000),
        pause_s=0.01,
    )


def not_followed(server):
    return server.metrics()["heliograph_dependencies_not_followed"]


async def test_a_dependency_that_was_busy_is_followed_later(each_server):
    server = each_server
    server.sql(SCHEMA)
    async with connected(server) as bob, await writer(server) as sql:
        async with await writer(server) as other, other.transaction():
            await other.execute("insert into members values (%s, 9)", (ALICE,))
            await bob.join("b", server.token(BOB), table("notes"))
            assert not_followed(server) == 1
        deadline_s = limits.DEPENDENCY_RETRY_S * 3
        followed = "the dependency to be followed"
        await wait_until(lambda: not_followed(server) == 0, followed, deadline_s=deadline_s)
        await sql.execute("insert into notes values (1, 1, null, true, 'seen')")
        await bob.until(lambda: bob.changes("b"))


async def test_rows_that_swap_their_keys_are_told_each_with_its_own_values(each_server):
    server = each_server
    server.sql(
        "create table seats (id int primary key deferrable, guest text)",
        "alter table seats replica identity full",
        "alter table seats enable row level security",
        "create policy p on seats for select to authenticated using (true)",
        "alter publication supabase_realtime add table seats",
        "insert into seats values (1, 'ann'), (2, 'ben')",
    )
    async with connected(server) as bob:
        await bob.join("s", server.token(BOB), table("seats"))
        server.sql("update seats set id = 3 - id")
        await bob.until(lambda: len(bob.changes("s")) == 2)
        told = {change["record"]["id"]: change["record"]["guest"] for change in bob.changes("s")}
        assert told == {1: "ben", 2: "ann"}
        before = {c["old_record"]["id"]: c["old_record"]["guest"] for c in bob.changes("s")}
        assert before == {1: "ann", 2: "ben"}
