"""Event triggers tell of changed rights, in commit order, and never break anybody's DDL."""

import json
from types import SimpleNamespace

import psycopg
import pytest

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import LogicalMessage
from heliograph.postgres.migrate import migrate
from heliograph.server.delivery.rights_messages import RightsMessages

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


class Stream:
    """Reads rights messages and rows of a slot, in commit order."""

    def __init__(self, connection):
        self.connection = connection

    async def start(self):
        await self.connection.execute(
            "select pg_create_logical_replication_slot('rights', 'pgoutput')"
        )
        cursor = await self.connection.execute("select secret from heliograph.server_secret")
        (self.secret,) = await cursor.fetchone()

    async def read(self):
        """Return parsed rights messages (dicts), rows (bytes) and 'commit' marks, in order."""
        cursor = await self.connection.execute(
            "select data from pg_logical_slot_get_binary_changes('rights', null, null,"
            " 'proto_version', '1', 'messages', 'true', 'publication_names', 'supabase_realtime')"
        )
        found = []
        for (data,) in await cursor.fetchall():
            match data[:1]:
                case b"C":
                    found.append("commit")
                case b"I":
                    found.append(data)
                case b"M":
                    assert data[1] == 1, "transactional"
                    prefix, rest = data[10:].split(b"\0", 1)
                    assert prefix == b"heliograph.rights"
                    secret, _, text = rest[4:].decode().partition(" ")
                    assert secret == self.secret
                    found.append(json.loads(text))
        return found

    async def messages(self):
        return [item for item in await self.read() if isinstance(item, dict)]


@pytest.fixture
def make_stream(connect):
    async def make(connection):
        await migrate(connection)
        stream = Stream(connection)
        await stream.start()
        return stream

    return make


PREPARATION = (
    "create table t (id int primary key, a text); create policy p on t using (true);"
    "create function f() returns int language sql as 'select 1';"
    "create publication mine; create view v as select 1 as x;"
    "create type z as (a int, b int)"
)

# statement → tag, class and identity of the first object, whether everything is listed
COMMANDS = {
    "create policy q on t using (true)": ("CREATE POLICY", "policy", "q on public.t", True),
    "alter policy p on t using (false)": ("ALTER POLICY", "policy", "p on public.t", True),
    "drop policy p on t": ("DROP POLICY", "policy", "p on public.t", True),
    "alter table t enable row level security": ("ALTER TABLE", "table", "public.t", True),
    "alter table t force row level security": ("ALTER TABLE", "table", "public.t", True),
    "alter table t owner to anon": ("ALTER TABLE", "table", "public.t", True),
    "alter table t add column b int": ("ALTER TABLE", "table", "public.t", True),
    "alter table t replica identity full": ("ALTER TABLE", "table", "public.t", True),
    "grant select on t to anon": ("GRANT", "table", None, False),
    "grant select (a) on t to anon": ("GRANT", "table", None, False),
    "revoke select on t from anon": ("REVOKE", "table", None, False),
    "grant usage on schema public to anon": ("GRANT", "schema", None, False),
    "revoke execute on function f() from public": ("REVOKE", "function", None, False),
    "create or replace function f() returns int language sql as 'select 2'": (
        "CREATE FUNCTION",
        "function",
        "public.f()",
        True,
    ),
    "alter function f() security definer": ("ALTER FUNCTION", "function", "public.f()", True),
    "drop function f()": ("DROP FUNCTION", "function", "public.f()", True),
    "alter publication mine add table t": (
        "ALTER PUBLICATION",
        "publication relation",
        "public.t in publication mine",
        True,
    ),
    "drop publication mine": ("DROP PUBLICATION", "publication", "mine", True),
    "create schema s": ("CREATE SCHEMA", "schema", "s", True),
    "create or replace view v as select 2 as x": ("CREATE VIEW", "view", "public.v", True),
    "alter type z add attribute c int": ("ALTER TYPE", "composite type", "public.z", True),
    "alter type z rename attribute a to d": (
        "ALTER TYPE",
        "composite type column",
        "public.z.d",
        True,
    ),
    "alter type z drop attribute b": ("ALTER TYPE", "composite type", "public.z", True),
    "drop view v": ("DROP VIEW", "view", "public.v", True),
}


async def test_every_command_that_changes_rights_tells_so(any_url, connect, make_stream):
    async with connect(any_url) as connection:
        stream = await make_stream(connection)
        await connection.execute(PREPARATION)
        cursor = await connection.execute("select 't'::regclass::oid::bigint")
        (table_oid,) = await cursor.fetchone()
        await stream.read()
        for statement, (tag, object_class, identity, complete) in COMMANDS.items():
            await connection.execute("begin")
            await connection.execute(statement)
            await connection.execute("commit")
            messages = await stream.messages()
            assert [message["tag"] for message in messages][:1] == [tag], statement
            message = messages[0]
            first = message["objects"][0]
            assert (first["class"], first["identity"]) == (object_class, identity), statement
            assert message["complete"] is complete, statement
            assert (first["oid"] is not None) == complete, statement
            if object_class in ("policy", "table", "publication relation") and complete:
                assert first["relation"] == table_oid, statement
            await restore(connection, statement)
            await stream.read()


async def restore(connection, statement):
    again = {
        "drop policy p on t": "create policy p on t using (true)",
        "drop function f()": "create function f() returns int language sql as 'select 1'",
        "drop publication mine": "create publication mine",
    }.get(statement)
    if again is not None:
        await connection.execute(again)


async def test_a_message_stands_where_its_command_was_committed(postgres_url, connect, make_stream):
    async with connect(postgres_url) as connection:
        stream = await make_stream(connection)
        await connection.execute(
            "create table t (id int primary key); alter publication supabase_realtime add table t"
        )
        await stream.read()
        async with connect(postgres_url) as other:
            # The DDL runs first and commits second: its message must come second.
            await other.execute(
                "begin; create table other_one (id int primary key);"
                "create policy p on other_one using (true)"
            )
            await connection.execute("insert into t values (1)")
            await other.execute("commit")
            await connection.execute("insert into t values (2)")
        found = await stream.read()
        kinds = [
            "row" if isinstance(item, bytes) else item if item == "commit" else item["tag"]
            for item in found
        ]
        assert kinds == [
            "row",
            "commit",
            "CREATE TABLE",
            "CREATE POLICY",
            "commit",
            "row",
            "commit",
        ]


async def test_what_is_rolled_back_is_not_told(postgres_url, connect, make_stream):
    async with connect(postgres_url) as connection:
        stream = await make_stream(connection)
        await connection.execute("create table t (id int primary key)")
        await stream.read()
        await connection.execute("begin; create policy p on t using (true); rollback")
        assert await stream.messages() == []


async def test_temporary_tables_are_not_worth_a_message(postgres_url, connect, make_stream):
    async with connect(postgres_url) as connection:
        stream = await make_stream(connection)
        await connection.execute(
            "create temp table passing (id int primary key); alter table passing add column b int;"
            "drop table passing"
        )
        assert await stream.messages() == []


async def test_a_plain_role_changes_its_table_without_any_right_on_our_schema(
    any_url, connect, other_user, make_stream
):
    async with connect(any_url) as connection:
        stream = await make_stream(connection)
        await connection.execute(
            "do $$ begin create role builder login; exception when duplicate_object then null;"
            " end $$; create schema built authorization builder"
        )
        await stream.read()
        async with connect(other_user(any_url, "builder")) as builder:
            await builder.execute(
                "set search_path = built; create table t (id int primary key);"
                "alter table t enable row level security; create policy p on t using (true);"
                "grant select on t to anon; drop table t"
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await builder.execute("select secret from heliograph.server_secret")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await builder.execute(
                    "select pg_logical_emit_message(true, 'heliograph.rights','x')"
                )
        tags = [message["tag"] for message in await stream.messages()]
        assert tags == ["CREATE TABLE", "ALTER TABLE", "CREATE POLICY", "GRANT", "DROP TABLE"]


async def test_a_session_in_replica_role_tells_too(postgres_url, connect, make_stream):
    async with connect(postgres_url) as connection:
        stream = await make_stream(connection)
        await connection.execute("set session_replication_role = replica")
        await connection.execute("create table t (id int primary key)")
        assert [message["tag"] for message in await stream.messages()] == ["CREATE TABLE"]


async def test_a_command_with_very_many_objects_says_that_it_does_not_list_them(
    postgres_url, connect, make_stream
):
    async with connect(postgres_url) as connection:
        stream = await make_stream(connection)
        await connection.execute(
            "create schema crowd; do $$ begin for i in 1..60 loop"
            " execute format('create table crowd.t%s (id int primary key)', i); end loop; end $$"
        )
        await stream.read()
        await connection.execute("drop schema crowd cascade")
        (message,) = await stream.messages()
        assert message == {"tag": "DROP SCHEMA", "objects": [], "complete": False}


async def test_removing_our_schema_leaves_a_database_that_works(any_url, connect):
    async with connect(any_url) as connection:
        await migrate(connection)
        await connection.execute("drop schema heliograph cascade")
        await connection.execute("create table t (id int primary key)")
        await connection.execute("drop table t")
        cursor = await connection.execute("select count(*) from pg_event_trigger")
        assert await cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    "damage",
    [
        "alter schema heliograph rename to elsewhere",
        "delete from heliograph.server_secret",
    ],
)
async def test_damage_to_our_schema_does_not_break_the_applications_ddl(
    postgres_url, connect, damage
):
    async with connect(postgres_url) as connection:
        await migrate(connection)
        await connection.execute(damage)
        await connection.execute("create table t (id int primary key)")
        await connection.execute("create policy p on t using (true)")
        await connection.execute("drop table t")


async def test_following_a_table_is_told_from_publishing_it(any_url, connect, make_stream):
    async with connect(any_url) as connection:
        stream = await make_stream(connection)
        await connection.execute("create table members (id int primary key)")
        await stream.read()
        for publication, is_harmless in (
            ("heliograph_dependencies", True),
            ("supabase_realtime", False),
        ):
            await connection.execute(f"alter publication {publication} add table members")
            (message,) = await stream.messages()
            content = f"s {json.dumps(message)}".encode()
            carrying = SimpleNamespace(
                messages=(LogicalMessage(True, Lsn(1), "heliograph.rights", content),),
                messages_omitted=0,
            )
            assert (RightsMessages(b"s").read(carrying) is None) is is_harmless
