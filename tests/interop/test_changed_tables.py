"""Tables that change under a subscription: whoever follows them has what SELECT shows, or is told.

Each follower keeps rows as an application does (`fixtures.keeping`): one with positions and a plain
one that are connected, and one that is away meanwhile and goes on from its position.
"""

import contextlib
from itertools import chain

import pytest

from fixtures.keeping import day_of, keeping
from fixtures.raw_client import ALICE, BOB
from fixtures.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


def made(name, columns="id int primary key, owner uuid, body text, rank int"):
    """Statements that make a table whose rows are their owners'."""
    return (
        f"create table {name} ({columns})",
        f"alter table {name} enable row level security",
        (
            f"create policy own on {name} for select to authenticated"
            " using (owner = (select auth.uid()))"
        ),
        f"grant select on {name} to authenticated",
        f"alter table {name} replica identity full",
        f"alter publication supabase_realtime add table {name}",
    )


#: What happens to a table of each name, and what of it is told.
CHANGES = {
    "emptied": (["truncate emptied"], "truncated"),
    "refilled": ([f"truncate refilled; insert into refilled values (7, '{ALICE}')"], "truncated"),
    "rewritten": (["alter table rewritten alter column rank type text"], "schema_changed"),
    "widened": (["alter table widened add column extra int default 7"], "schema_changed"),
    "narrowed": (["alter table narrowed drop column rank"], "schema_changed"),
    "relabelled": (["alter table relabelled rename column rank to place"], "schema_changed"),
    "replaced": (
        ["alter table replaced drop column rank", "alter table replaced add column rank int"],
        "schema_changed",
    ),
    "keyed": (["alter table keyed replica identity default"], "rights_changed"),
    "compacted": (["vacuum full compacted"], None),
    "withdrawn": (
        [
            "alter publication supabase_realtime drop table withdrawn",
            f"insert into withdrawn values (7, '{ALICE}')",
            "alter publication supabase_realtime add table withdrawn",
        ],
        "publication_changed",
    ),
}


@contextlib.asynccontextmanager
async def watched(server, names):
    """Give a day, followers of each table, those who went away, and of another user's table."""
    statements = [statement for name in (*names, "calm") for statement in made(name)]
    async with day_of(server, *statements) as day, keeping(server) as client:
        calm = [await day.follow(client, "calm", BOB, positions=kept) for kept in (True, False)]
        present = {
            name: [await day.follow(client, name, ALICE, positions=kept) for kept in (True, False)]
            for name in names
        }
        async with keeping(server) as leaving:
            absent = {name: await day.follow(leaving, name, ALICE) for name in names}
            for name in names:
                await day.sql.execute(f"insert into {name} values (1, '{ALICE}')")
            await day.sql.execute(f"insert into calm values (1, '{BOB}')")
            await day.settle(*calm, *absent.values(), *chain(*present.values()))
        for name in names:
            await day.sql.execute(f"insert into {name} values (2, '{ALICE}')")
        yield day, present, absent, calm


async def test_tables_that_change_are_told_and_what_was_told_is_what_select_shows(any_server):
    server = any_server
    async with watched(server, CHANGES) as (day, present, absent, calm):
        for number, (name, (statements, _)) in enumerate(CHANGES.items(), 2):
            for statement in statements:
                await day.sql.execute(statement)
            await day.sql.execute(f"insert into {name} (id, owner) values (3, '{ALICE}')")
            await day.sql.execute(f"insert into calm values ({number}, '{BOB}')")
        async with keeping(server) as client:
            back = {
                name: await day.follow(client, name, ALICE, after=absent[name]) for name in CHANGES
            }
            await day.settle(*(kept for kept, _ in present.values()), *back.values(), *calm)
            for name, (_, reason) in CHANGES.items():
                # Of rights that change without a row only those are told who keep positions.
                hearers = present[name][:1] if reason == "rights_changed" else present[name]
                for follower in hearers if reason is not None else ():
                    what = f"{name} to be told {reason} (is told {follower.reasons})"
                    await wait_until(lambda f=follower, r=reason: r in f.reasons, what)
                assert back[name].reasons or reason is None, name
        for follower in calm:
            # It has everything. Of rows that commit right before a definition changes it may be
            # told that rights have.
            assert set(follower.reasons) <= {"rights_changed"}


async def test_who_follows_other_tables_is_told_nothing_of_a_publication_that_changes(any_server):
    async with watched(any_server, ["withdrawn"]) as (day, present, _, calm):
        await day.settle(*calm, *present["withdrawn"])
        for statement in CHANGES["withdrawn"][0]:
            await day.sql.execute(statement)
        for follower in present["withdrawn"]:
            await follower.client.until(lambda f=follower: "publication_changed" in f.reasons)
        # While there is anything to tell no position is told.
        position = calm[0].position
        await day.settle(*calm, *present["withdrawn"])
        await calm[0].client.until(lambda: calm[0].position != position)
        assert [follower.reasons for follower in calm] == [[], []]


#: How a table goes away, by its name.
GONE = {
    "dropped": ("drop table dropped",),
    "renamed": ("alter table renamed rename to put_aside",),
}
#: How another one takes its name, within a transaction.
SWAPPED = (
    "alter table swapped rename to old_swapped",
    *made("swapped"),
    "insert into swapped select * from old_swapped",
)


async def test_a_table_that_is_gone_ends_its_channels_so_that_clients_look_again(any_server):
    """Joining again finds what has its name by then, or is refused."""
    server = any_server
    async with watched(server, [*GONE, "swapped"]) as (day, present, absent, calm):
        for name, statements in {**GONE, "swapped": SWAPPED}.items():
            async with day.sql.transaction():
                for statement in statements:
                    await day.sql.execute(statement)
            for follower in present[name]:
                await follower.client.until(lambda f=follower: f.is_broken_off)
                assert follower.errors[-1] == "table_gone: the table was dropped or renamed"
        async with keeping(server) as client:
            for name in GONE:
                refused = await day.follow(client, name, ALICE, after=absent[name])
                assert refused.errors[0].startswith("Unable to subscribe to changes with given")
            await day.sql.execute(f"insert into old_swapped values (9, '{ALICE}')")
            for statement in chain(*map(made, GONE)):
                await day.sql.execute(statement)
            for name in (*GONE, "swapped"):
                again = await day.follow(client, name, ALICE, after=absent[name])
                await day.settle(again)
                assert set(again.reasons) == {"rights_changed"}
                assert 9 not in again.rows
        await day.settle(*calm)


PARTS = (
    "create table parts (id int primary key, owner uuid, body text) partition by range (id)",
    "create table parts1 partition of parts for values from (0) to (100)",
    "create table parts2 partition of parts for values from (100) to (200)",
    "create table late partition of parts default",
    "create table alone (id int primary key, owner uuid, body text)",
    f"insert into alone values (201, '{ALICE}')",
    "alter table parts enable row level security",
    "create policy own on parts for select to authenticated using (owner = (select auth.uid()))",
    "grant select on parts to authenticated",
    *(f"alter table {name} replica identity full" for name in ("parts", "parts1", "parts2")),
    "alter table late replica identity full",
    "alter publication supabase_realtime set (publish_via_partition_root = true)",
    "alter publication supabase_realtime add table parts",
)
MOVES = (
    "alter table parts attach partition alone for values from (200) to (300)",
    "alter table parts detach partition parts2",
)


async def test_rows_that_come_and_go_with_partitions_are_told_to_who_was_away_as_well(any_server):
    server = any_server
    told = {"partitions_changed", "rights_changed"}
    async with day_of(server, *PARTS, *made("calm")) as day, keeping(server) as client:
        calm = await day.follow(client, "calm", BOB)
        here = await day.follow(client, "parts", ALICE)
        async with keeping(server) as leaving:
            absent = await day.follow(leaving, "parts", ALICE)
            await day.sql.execute(f"insert into parts values (1, '{ALICE}'), (101, '{ALICE}')")
            await day.settle(absent, here, calm)
        await day.sql.execute("truncate parts1")
        await client.until(lambda: "partitions_changed" in here.reasons)
        # Although everybody else was told long ago, and no row came since.
        async with keeping(server) as leaving:
            back = await day.follow(leaving, "parts", ALICE, after=absent)
            assert set(back.reasons) == {"rights_changed"}
            await day.settle(here, back)
        for statement in MOVES:
            await day.sql.execute(statement)
        await day.sql.execute(f"insert into parts values (2, '{ALICE}')")
        async with keeping(server) as back_again:
            again = await day.follow(back_again, "parts", ALICE, after=back)
            await day.settle(here, again, calm)
            assert here.rows.keys() & {1, 2, 101, 201} == {2, 201}
            assert again.reasons
            assert set(here.reasons) | set(again.reasons) <= told
