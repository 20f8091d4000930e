"""Rights that change in the transaction of the rows, or under a filter: nothing older shows."""

import pytest

from fixtures.raw_client import ALICE, connected, subscribed, table

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

SCHEMA = """
create table members (person uuid, team int, primary key (person, team));
create table notes (id int primary key, team int, body text);
alter table notes enable row level security;
create policy team on notes for select to authenticated using (exists
  (select from members m where m.person = (select auth.uid()) and m.team = notes.team));
grant select on members to authenticated;
alter table notes replica identity full;
revoke select on notes from authenticated, anon;
grant select (id, team) on notes to authenticated;
alter publication supabase_realtime add table notes;
"""

GRANTS = {
    "membership": f"insert into members values ('{ALICE}', 1)",
    "policy": "alter policy team on notes using (true)",
}


def old_records(client):
    return [change["old_record"] for change in client.changes("notes") if "old_record" in change]


@pytest.mark.parametrize("grant", list(GRANTS.values()), ids=list(GRANTS))
@pytest.mark.parametrize("is_before", [True, False])
async def test_a_grant_with_an_update_shows_the_new_row_and_the_key_of_the_old(
    server, grant, is_before
):
    server.sql(SCHEMA, "grant select on notes to authenticated")
    async with connected(server) as client, subscribed(server, "notes") as (service, sql):
        await client.join("notes", server.token(ALICE), table("notes"))
        await sql.execute("insert into notes values (1, 1, 'hidden'), (2, 1, 'hidden, too')")
        await service.until(lambda: len(service.changes("notes")) == 2)
        statements = [
            grant,
            "update notes set body = 'open' where id = 1; delete from notes where id = 2",
        ]
        async with sql.transaction():
            for statement in statements if is_before else reversed(statements):
                await sql.execute(statement)
        await client.until(lambda: len(client.changes("notes")) == 2)
        assert client.changes("notes")[0]["record"] == {"id": 1, "team": 1, "body": "open"}
        assert old_records(client) == [{"id": 1}, {"id": 2}]
        await sql.execute("update notes set body = 'later' where id = 1")
        await client.until(lambda: len(client.changes("notes")) == 3)
        assert old_records(client)[-1] == {"id": 1, "team": 1, "body": "open"}


async def test_a_column_granted_with_an_update_is_not_shown_of_the_old_row(server):
    server.sql(SCHEMA, f"insert into members values ('{ALICE}', 1)")
    async with connected(server) as client, subscribed(server, "notes") as (_, sql):
        await client.join("notes", server.token(ALICE), table("notes"))
        await sql.execute("insert into notes values (1, 1, 'hidden')")
        await client.until(lambda: client.changes("notes"))
        async with sql.transaction():
            await sql.execute("grant select on notes to authenticated")
            await sql.execute("update notes set body = 'open'")
        await client.until(lambda: len(client.changes("notes")) == 2)
        assert client.changes("notes")[1]["record"]["body"] == "open"
        assert old_records(client) == [{"id": 1}]


async def test_an_identity_by_an_index_tells_no_more_of_the_old_row_than_the_key(server):
    server.sql(
        "create table staff (id int primary key, salary int not null)",
        "create unique index by_salary on staff (id, salary)",
        "alter table staff replica identity using index by_salary",
        "alter table staff enable row level security",
        "create policy low on staff for select to authenticated using (salary < 100)",
        "alter publication supabase_realtime add table staff",
    )
    async with connected(server) as client, subscribed(server, "staff") as (service, sql):
        await client.join("staff", server.token(ALICE), table("staff"))
        await sql.execute("insert into staff values (1, 5000)")
        await sql.execute("update staff set salary = 50")
        await client.until(lambda: client.changes("staff"))
        assert client.changes("staff")[0]["old_record"] == {"id": 1}
        await service.until(lambda: len(service.changes("staff")) == 2)
        assert service.changes("staff")[1]["old_record"] == {"id": 1, "salary": 5000}


async def test_a_filter_on_a_column_that_was_revoked_answers_no_more(server):
    server.sql(
        "create table staff (id int primary key, salary int)",
        "alter table staff enable row level security",
        "create policy every on staff for select to authenticated using (true)",
        "alter table staff replica identity full",
        "alter publication supabase_realtime add table staff",
    )
    async with connected(server) as client, subscribed(server, "staff") as (_, sql):
        for topic, condition in (("filtered", "salary=gt.1000"), ("all", "id=gt.0")):
            entry = table("staff", filter=condition)
            await client.join(topic, server.token(ALICE), entry)
        await sql.execute("insert into staff values (1, 5000)")
        await client.until(lambda: client.changes("filtered") and client.changes("all"))
        await sql.execute("revoke select on staff from authenticated")
        await sql.execute("grant select (id) on staff to authenticated")
        await sql.execute("insert into staff values (2, 5000)")
        await sql.execute("update staff set salary = 1 where id = 1")
        await client.until(lambda: len(client.changes("all")) == 3)
        assert len(client.changes("filtered")) == 1
        await client.until(lambda: any("rights_changed" in e for e in client.errors("filtered")))
        await sql.execute("grant select on staff to authenticated")
        await sql.execute("insert into staff values (3, 5000)")
        await client.until(lambda: len(client.changes("filtered")) == 2)
