"""Clients that keep positions go on where they were, or are told that they can not (P1)."""

import base64
import contextlib
import json
import signal

import psycopg
import pytest

from fixtures.raw_client import ALICE, BOB, stopped, table, write_until
from fixtures.resuming import following
from fixtures.server import run_server
from fixtures.server_process import slot_of
from fixtures.without_reader import without_reader

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

PLAIN = (
    "create table w (id int primary key, body text)",
    "alter table w replica identity full",
    "alter publication supabase_realtime add table w",
)
NOTES = (
    "create table members (owner uuid primary key)",
    "create table notes (id int primary key, owner uuid, body text)",
    "alter table notes enable row level security",
    (
        "create policy own on notes for select to authenticated using (owner = (select auth.uid())"
        " and exists (select from members m where m.owner = notes.owner))"
    ),
    "grant select on members, notes to authenticated",
    "alter table notes replica identity full",
    "alter publication supabase_realtime add table notes",
    f"insert into members values ('{ALICE}'), ('{BOB}')",
)


def said(client, topic):
    return [system["message"] for system in client.systems(topic)]


@contextlib.asynccontextmanager
async def sql_of(server):
    connecting = psycopg.AsyncConnection.connect(server.database_url, autocommit=True)
    async with await connecting as sql:
        yield sql


async def insert(sql, *numbers):
    for number in numbers:
        await sql.execute("insert into w values (%s)", (number,))


async def write_notes(sql, *numbers, owner=ALICE):
    for number in numbers:
        await sql.execute("insert into notes values (%s, %s)", (number, owner))


async def leave_behind(server, topic, token, sql, write):
    """Follow a table for a while; return the last position."""
    async with following(server) as client:
        await client.follow(topic, token)
        await write(sql, 1, 2)
        return await client.settled(topic, 2)


async def test_what_was_missed_comes_before_anything_live_and_each_change_once(any_server):
    server = any_server
    server.sql(*PLAIN)
    async with sql_of(server) as sql:
        since = await leave_behind(server, "w", server.service_role_key, sql, insert)
        await insert(sql, *range(3, 30))
        async with following(server) as client:
            await client.follow("w", server.service_role_key, since=since)
            await insert(sql, *range(30, 40))
            await client.settled("w", 37)
            assert client.ids("w") == list(range(3, 40))
            assert client.resyncs("w") == []
            joined = next(frame for frame in client.frames if frame[3] == "phx_reply")
            echoed = joined[4]["response"]["postgres_changes"][0]
            assert (echoed["positions"], echoed["since"]) == (True, since)


async def test_policies_judge_again_what_was_missed(any_server):
    server = any_server
    server.sql(*NOTES)
    async with sql_of(server) as sql:
        since = await leave_behind(server, "notes", server.token(ALICE), sql, write_notes)
        await write_notes(sql, 3)
        await write_notes(sql, 4, owner=BOB)
        await write_notes(sql, 5)
        async with following(server) as client:
            # A refreshed token of the same user is the same subscriber.
            await client.follow("notes", server.token(ALICE, ttl_s=7200), since=since)
            await client.settled("notes", 2)
            assert (client.ids("notes"), client.resyncs("notes")) == ([3, 5], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("url", ["postgres_url", "plain_url"])
async def test_a_restart_of_the_server_loses_nothing(url, number, request, tmp_path):
    database_url = request.getfixturevalue(url)
    with run_server(database_url, tmp_path) as server:
        server.sql(*NOTES)
        async with sql_of(server) as sql:
            since = await leave_behind(server, "notes", server.token(ALICE), sql, write_notes)
            await write_notes(sql, 3)
        server.stop(number)
        async with sql_of(server) as sql:
            await write_notes(sql, 4)
            await write_notes(sql, 5, owner=BOB)
    with run_server(database_url, tmp_path) as server:
        async with following(server) as client, sql_of(server) as sql:
            await client.follow("notes", server.token(ALICE), since=since)
            await write_notes(sql, 6)
            await client.settled("notes", 3)
            assert (client.ids("notes"), client.resyncs("notes")) == ([3, 4, 6], [])


async def test_a_subscriber_who_is_new_gets_nothing_of_what_fills_the_ring_again(
    postgres_url, tmp_path
):
    with run_server(postgres_url, tmp_path) as server:
        server.sql(*PLAIN)
        async with sql_of(server) as sql:
            await insert(sql, *range(50))
        server.stop(signal.SIGKILL)
    with run_server(postgres_url, tmp_path) as server:
        async with following(server) as client, sql_of(server) as sql:
            await client.follow("w", server.service_role_key)
            await insert(sql, 100)
            await client.settled("w", 1)
            assert (client.ids("w"), client.resyncs("w")) == ([100], [])


RIGHTS_CHANGES = [
    f"delete from members where owner = '{ALICE}'",
    "alter policy own on notes using (owner = (select auth.uid()))",
    (
        "revoke select on notes from authenticated;"
        " grant select (id, owner) on notes to authenticated"
    ),
    "create role somebody in role authenticated; drop role somebody",
]


@pytest.mark.parametrize("change", RIGHTS_CHANGES)
async def test_who_keeps_positions_is_told_that_rights_changed_without_a_row(any_server, change):
    server = any_server
    server.sql(*NOTES)
    if "role somebody" in change:
        change = "create role somebody_else in role authenticated"
    try:
        async with following(server) as client, sql_of(server) as sql:
            await client.follow("notes", server.token(ALICE))
            await write_notes(sql, 1)
            await client.settled("notes", 1)
            await sql.execute(change)
            await client.until(lambda: "rights_changed" in client.resyncs("notes"))
    finally:
        server.sql("drop role if exists somebody_else")


async def test_many_changes_judged_after_rights_changed_are_told_as_one_resync(any_server):
    server = any_server
    server.sql(*NOTES)
    async with following(server) as client, sql_of(server) as sql:
        await client.follow("notes", server.token(ALICE))
        await write_notes(sql, 1)
        await client.settled("notes", 1)
        with stopped(server):
            await write_notes(sql, *range(2, 102))
            await sql.execute(RIGHTS_CHANGES[1])
        await client.until(lambda: client.resyncs("notes"))
        told = client.marks("notes")[-1]

        async def write(number):
            await write_notes(sql, number)

        await write_until(client, lambda: client.ids("notes")[-1] >= 1_000, write)
        await client.until(lambda: client.marks("notes")[-1] != told)
        # Once a second at the most; each makes the client load.
        assert len(client.resyncs("notes")) <= 20
        assert set(client.resyncs("notes")) == {"rights_changed"}


@pytest.mark.security
@pytest.mark.parametrize("change", RIGHTS_CHANGES[:3])
async def test_rights_that_changed_while_one_was_away_are_told(any_server, change):
    server = any_server
    server.sql(*NOTES)
    async with sql_of(server) as sql:
        since = await leave_behind(server, "notes", server.token(ALICE), sql, write_notes)
        await write_notes(sql, 3)
        await sql.execute(change)
        async with following(server) as client:
            await client.follow("notes", server.token(ALICE), since=since)
            await client.until(lambda: client.resyncs("notes"))
            assert set(client.resyncs("notes")) == {"rights_changed"}
            assert client.ids("notes") == []


def flipped(position, byte):
    data = bytearray(base64.urlsafe_b64decode(position))
    data[byte] ^= 1
    return base64.urlsafe_b64encode(data).decode()


@pytest.mark.security
async def test_foreign_and_forged_positions_are_of_no_use(server):
    server.sql(*NOTES)
    alice, bob = server.token(ALICE), server.token(BOB)
    async with sql_of(server) as sql:
        since = await leave_behind(server, "notes", alice, sql, write_notes)
        await write_notes(sql, 3)
        cases = [
            (bob, since, {}, "subscription_changed"),
            (alice, since, {"filter": "id=gt.0"}, "subscription_changed"),
            (alice, since, {"event": "INSERT"}, "subscription_changed"),
            (alice, flipped(since, 12), {}, "position_not_valid"),
            (alice, flipped(since, 40), {}, "position_not_valid"),
            (alice, "", {}, "position_not_valid"),
            (alice, "x" * 5_000, {}, "position_not_valid"),
            (alice, {"a": 1}, {}, "position_not_valid"),
        ]
        for token, position, entry, reason in cases:
            async with following(server) as client:
                await client.follow("notes", token, since=position, **entry)
                assert client.resyncs("notes") == [reason]
                assert client.ids("notes") == []
                # Live all the same.
                owner = BOB if token == bob else ALICE
                number = (await (await sql.execute("select max(id) from notes")).fetchone())[0] + 1
                await write_notes(sql, number, owner=owner)
                await client.settled("notes", 1)
                assert client.ids("notes") == [number]


async def test_a_position_that_the_ring_does_not_reach_is_told(start_server):
    server = start_server(HELIOGRAPH_RING_TRANSACTIONS_MAX="10")
    server.sql(*PLAIN)
    async with sql_of(server) as sql:
        since = await leave_behind(server, "w", server.service_role_key, sql, insert)
        await insert(sql, *range(3, 30))
        async with following(server) as client:
            await client.follow("w", server.service_role_key, since=since)
            await client.until(lambda: client.resyncs("w"))
            assert (client.resyncs("w"), client.ids("w")) == (["position_expired"], [])


async def test_a_lost_slot_begins_a_new_epoch(postgres_url, tmp_path):
    with run_server(postgres_url, tmp_path) as server:
        server.sql(*PLAIN)
        async with sql_of(server) as sql:
            since = await leave_behind(server, "w", server.service_role_key, sql, insert)
        server.stop()
        slot = slot_of(postgres_url)
        server.sql(f"select pg_drop_replication_slot('{slot}')", "insert into w values (3)")
    with run_server(postgres_url, tmp_path) as server:
        async with following(server) as client, sql_of(server) as sql:
            await client.follow("w", server.service_role_key, since=since)
            assert client.resyncs("w") == ["epoch_changed"]
            await insert(sql, 4)
            assert await client.settled("w", 1)
            assert client.ids("w") == [4]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("select pg_drop_replication_slot('{}')", "slot_recreated"),
        ("select pg_replication_slot_advance('{}', pg_current_wal_insert_lsn())", "slot_moved"),
    ],
)
async def test_what_becomes_of_the_slot_meanwhile_is_told_and_no_old_position_counts(
    any_server, harm, reason
):
    server = any_server
    server.sql(*PLAIN)
    async with following(server) as client, sql_of(server) as sql:
        await client.follow("w", server.service_role_key)
        await insert(sql, 1)
        since = await client.settled("w", 1)
        async with without_reader(server, sql) as slot:
            await insert(sql, 2)
            await sql.execute(harm.format(slot))
        await client.until(lambda: reason in client.resyncs("w"))
        async with following(server) as other:
            await other.follow("w", server.service_role_key, since=since)
            assert other.resyncs("w") == ["epoch_changed"]
        # The position that was told with it is one of the new epoch.
        told = client.marks("w")[-1]
        async with following(server) as other:
            await other.follow("w", server.service_role_key, since=told)

            async def write(number):
                await insert(sql, number)

            # Without event triggers the rights are not known again before the first judgement.
            await write_until(other, lambda: other.changes("w"), write)
            assert set(other.resyncs("w")) <= {"rights_changed"}


async def test_a_database_that_was_put_back_begins_a_new_epoch(postgres_url, tmp_path):
    with run_server(postgres_url, tmp_path) as server:
        server.sql(*PLAIN)
        async with sql_of(server) as sql:
            since = await leave_behind(server, "w", server.service_role_key, sql, insert)
        server.stop()
    # What the server remembers lies beyond the end of the log, as after a restore.
    kept = tmp_path / "data" / "state" / f"{slot_of(postgres_url)}.continuity"
    line = kept.read_text()
    kept.write_text(f"{int(line[:16], 16) + (1 << 40):016x}{line[16:]}")
    with run_server(postgres_url, tmp_path) as server:
        async with following(server) as client:
            await client.follow("w", server.service_role_key, since=since)
            assert client.resyncs("w") == ["epoch_changed"]
        assert any(said.get("reason") == "database_behind" for said in server.log())


async def test_positions_stand_within_large_transactions_and_one_goes_on_there(server):
    server.sql(*PLAIN)
    rows = 20_000
    async with sql_of(server) as sql:
        async with following(server) as client:
            await client.follow("w", server.service_role_key)
            await sql.execute(f"insert into w select g from generate_series(1, {rows}) g")
            await client.until(lambda: len(client.marks("w")) > 3)
            cut = client.marks("w")[-1]
        frames = [frame for frame in client.frames if frame[2] == "realtime:w"]
        behind = next(i for i, frame in enumerate(frames) if frame[4].get("position") == cut)
        before = sum(frame[3] == "postgres_changes" for frame in frames[:behind])
        assert before > 0
        async with following(server) as client:
            await client.follow("w", server.service_role_key, since=cut)
            await client.settled("w", rows - before)
            assert client.ids("w") == list(range(before + 1, rows + 1))
            assert client.resyncs("w") == []


async def test_an_idle_channel_is_told_its_position_and_who_did_not_ask_is_not(server):
    server.sql(*PLAIN)
    async with following(server) as client, sql_of(server) as sql:
        await client.follow("w", server.service_role_key)
        await client.join("quiet", server.service_role_key, table("w"))
        told = len(client.marks("w"))
        await client.until(lambda: len(client.marks("w")) >= told + 2, 15)
        await insert(sql, 1)
        await client.until(lambda: client.changes("quiet"))
        assert client.marks("quiet") == []


async def test_a_token_with_other_claims_leaves_the_channel_its_positions(server):
    server.sql(*NOTES)
    async with sql_of(server) as sql, following(server) as client:
        await client.follow("notes", server.token(ALICE))
        refreshed = {"access_token": server.token(ALICE, team="new")}
        message = ["1", "2", "realtime:notes", "access_token", refreshed]
        await client.socket.send(json.dumps(message))
        await client.until(lambda: said(client, "notes").count("Subscribed to PostgreSQL") == 2)
        await sql.execute(f"insert into notes values (1, '{ALICE}', 'x')")
        await client.settled("notes", 1)
