"""A role that is dropped under who speaks for it, and a group that somebody is a member of."""

import psycopg
import pytest

from fixtures.keeping import day_of, keeping
from fixtures.raw_client import ALICE, BOB
from fixtures.server import run_server

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

ROLES = ("staff", "team")
TABLES = (
    "create table notes (id int primary key, owner uuid)",
    "alter table notes enable row level security",
    "create policy own on notes for select to authenticated, staff using (owner = auth.uid())",
    "create table plans (id int primary key, owner uuid)",
    "alter table plans enable row level security",
    "create policy own on plans for select to team using (owner = auth.uid())",
    "grant select on notes to authenticated, staff",
    "grant select on plans to team",
    "grant team to authenticated with inherit true",
    "alter table notes replica identity full",
    "alter table plans replica identity full",
    "alter publication supabase_realtime add table notes, plans",
)

MADE_AGAIN = (
    "create role staff nologin",
    "grant usage on schema auth, public to staff",
    "grant select on notes to staff",
    "alter policy own on notes to authenticated, staff",
    # What `heliograph migrate` does.
    "grant staff to heliograph_judge",
)
NOT_USABLE = "role_not_usable: the role of this token can not be assumed"


@pytest.fixture(params=["postgres_url", "plain_url"])
def staffed(request, tmp_path):
    """A server whose tokens may name the role `staff`; roles of the cluster are gone after it."""
    url = request.getfixturevalue(request.param)
    with psycopg.connect(url, autocommit=True) as sql:
        for role in ROLES:
            sql.execute(f"create role {role} nologin")
    roles = "anon,authenticated,service_role,staff"
    with run_server(url, tmp_path, HELIOGRAPH_ROLES=roles) as server:
        server.sql("grant usage on schema auth, public to staff, team")
        yield server
    drop(url)


def drop(url):
    with psycopg.connect(url, autocommit=True) as sql:
        for role in ROLES:
            if sql.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
                sql.execute(f"grant {role} to current_user")
                sql.execute(f"drop owned by {role}")
                sql.execute(f"drop role {role}")


async def test_a_dropped_role_ends_its_channels_and_a_dropped_group_is_told(staffed):
    server = staffed
    async with day_of(server, *TABLES) as day, keeping(server) as client, keeping(server) as other:
        staff = [
            await day.follow(client, "notes", ALICE, role="staff", positions=kept)
            for kept in (True, False)
        ]
        member = await day.follow(client, "plans", ALICE)
        calm = await day.follow(other, "notes", BOB)
        async with keeping(server) as leaving:
            left = await day.follow(leaving, "notes", ALICE, role="staff")
            left_member = await day.follow(leaving, "plans", ALICE)
            await day.settle(calm, member, *staff, left, left_member)
        drop(server.database_url)
        await day.sql.execute("insert into notes values (1, %s), (2, %s)", (ALICE, BOB))
        await day.sql.execute("insert into plans values (1, %s)", (ALICE,))
        for follower in staff:
            await client.until(lambda f=follower: f.is_closed)
            assert follower.errors[-1] == NOT_USABLE
        await client.until(lambda: "rights_changed" in member.reasons and member.rows == {})
        await day.settle(calm)
        async with keeping(server) as back:
            again = await day.follow(back, "plans", ALICE, after=left_member)
            assert (again.reasons, again.rows) == (["rights_changed"], {})
            refused = await day.follow(back, "notes", ALICE, role="staff", after=left)
            assert refused.joined["status"] == "error"
        for follower in (*staff, member):
            assert 1 not in follower.ids
        # Another role of that name is another role.
        for statement in MADE_AGAIN:
            await day.sql.execute(statement)
        async with keeping(server) as back:
            again = await day.follow(back, "notes", ALICE, role="staff", after=left)
            assert again.reasons == ["rights_changed"]
            await day.settle(again)
