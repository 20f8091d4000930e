"""S15: a large value that an UPDATE leaves alone is never told as null, nor as somebody else's."""

import pytest

from fixtures.raw_client import ALICE, BOB, connected, table

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

#: Larger than a page, stored apart and not compressed: PostgreSQL does not write it again.
SIZE = 20_000

SCHEMA = """
create table {name} (id int primary key, owner uuid, rank int, body text);
alter table {name} alter column body set storage external;
alter table {name} enable row level security;
alter table {name} replica identity {identity};
create policy p on {name} for select to authenticated using ({policy});
alter publication supabase_realtime add table {name};
"""
TABLES = {
    "whole": ("full", "owner = auth.uid()"),
    "keyed": ("default", "owner = auth.uid()"),
    "whole_judged": ("full", "owner = auth.uid() and body like left(auth.uid()::text, 1) || '%'"),
}


async def test_a_large_value_that_did_not_change_stays_what_it_was(server):
    for name, (identity, policy) in TABLES.items():
        server.sql(SCHEMA.format(name=name, identity=identity, policy=policy))
    users = {ALICE: ("0" + "a" * SIZE, 1), BOB: ("0" + "b" * SIZE, 2)}
    async with connected(server) as alice, connected(server) as bob:
        clients = {ALICE: alice, BOB: bob}
        for user, client in clients.items():
            for name in TABLES:
                said = await client.join(name, server.token(user), table(name))
                assert said["status"] == "ok", said
        for name in TABLES:
            server.sql(
                *(
                    f"insert into {name} values ({key}, '{user}', 0, '{body}')"
                    for user, (body, key) in users.items()
                ),
                f"update {name} set rank = 1",
                f"update {name} set rank = 2, body = body || 'c' where id = 1",
                f"update {name} set rank = 3",
            )
        for user, client in clients.items():
            body, key = users[user]
            after = body + "c" if user == ALICE else body
            for name in TABLES:
                await client.until(
                    lambda c=client, n=name: any(x["record"]["rank"] == 3 for x in c.changes(n))
                )
                told = [change["record"] for change in client.changes(name)]
                # Key and rank of every version; the value where it is known.
                values = [
                    (0, body),
                    (1, body),
                    *([(2, after)] if user == ALICE else []),
                    (3, after),
                ]
                for record, (rank, value) in zip(told, values, strict=True):
                    expected = {"id": key, "owner": user, "rank": rank, "body": value}
                    if name == "keyed" and rank in {1, 3}:
                        del expected["body"]
                    assert record == expected, name
            assert [client.errors(name) for name in TABLES] == [[], [], []]
