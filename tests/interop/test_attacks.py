"""A hostile client against `heliograph serve`: nothing leaks into SQL, errors or logs."""

import base64
import contextlib
import json
import re
import time

import jwt
import psycopg
import pytest
import websockets
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.raw_client import BOB, connected_to, table
from fixtures.serve_process import serving
from fixtures.server import JWT_SECRET
from heliograph.config import Secret, Settings
from heliograph.core.tokens.minting import mint_legacy_key, mint_token

pytestmark = [
    *(pytest.mark.interop, pytest.mark.postgres, pytest.mark.security, pytest.mark.asyncio),
]

ANON_KEY = mint_legacy_key(JWT_SECRET, "anon")
SERVICE_KEY = mint_legacy_key(JWT_SECRET, "service_role")
OPAQUE = {
    "HELIOGRAPH_PUBLISHABLE_KEY": "sb_publishable_planted0123456789",
    "HELIOGRAPH_SECRET_KEY": "sb_secret_planted0123456789",
}
MARK = "zq8x"

#: Everything that PostgreSQL is asked, one JSON object a line.
LOGGED = {
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_directory": "log",
    "log_filename": "all.log",
    "log_statement": "all",
}

SCHEMA = """
create table notes (id int primary key, owner uuid, body text, price numeric, doc jsonb,
  salary int);
alter table notes enable row level security;
create policy own on notes for select using (owner = (select auth.uid()));
alter table notes replica identity full;
revoke select on notes from anon, authenticated;
grant select (id, owner, body, price, doc) on notes to anon, authenticated;
create table ungranted (id int primary key);
alter table ungranted enable row level security;
revoke all on ungranted from anon, authenticated;
create table unpublished (id int primary key);
alter table unpublished enable row level security;
create table unprotected (id int primary key);
create table keyless (id int);
alter table keyless enable row level security;
create policy none on keyless for select using (false);
create table headless (id int primary key, body text);
alter table headless enable row level security;
create policy every on headless for select using (true);
revoke select on headless from anon, authenticated;
grant select (body) on headless to authenticated;
create schema closed;
create table closed.things (id int primary key);
alter table closed.things enable row level security;
alter publication supabase_realtime add table notes, ungranted, unprotected, keyless,
  headless, closed.things;
"""

HOSTILE = (
    f'{MARK}"; drop table notes; --',
    f"{MARK}'; drop table notes; --",
    f"{MARK}' or 1=1 --",
    f"{MARK}$$;select pg_sleep(9)$$",
    f"\\{MARK}'",
    f"{MARK}\n;select 1",
    f"{MARK}" + "ü" * 64,
    f"{MARK}%s%(x)s{{}}$1",
    f"pg_catalog.pg_authid {MARK}",
)


def token(subject=BOB, **claims):
    content = {"role": "authenticated", "sub": subject, **claims}
    return mint_token(JWT_SECRET, content, now_s=time.time(), ttl_s=600)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A server, the database's URL, and the file with all that PostgreSQL was asked."""
    with run_test_cluster(binaries_of(18), LOGGED) as cluster:
        url = cluster.create_database().replace("postgres@", "postgres:planted-password@")
        folder = tmp_path_factory.mktemp("attacked")
        with serving(url, folder, HELIOGRAPH_LOG_LEVEL="debug", **OPAQUE) as served:
            with psycopg.connect(url, autocommit=True) as sql:
                sql.execute(SCHEMA)
            yield served, url, cluster.data_dir / "log" / "all.json"


def connected(served, key=ANON_KEY):
    return connected_to(served.websocket_url + key)


async def answer(client, topic, access_token, *entries):
    """Join; return the system message, or the reason of the refusal."""
    payload = {"config": {"postgres_changes": list(entries)}, "access_token": access_token}
    await client.socket.send(json.dumps(["9", "9", f"realtime:{topic}", "phx_join", payload]))

    def found():
        for _, _, about, event, told in client.frames:
            if about == f"realtime:{topic}" and event == "system":
                return told["message"]
            if about == f"realtime:{topic}" and told.get("status") == "error":
                return told["response"]["reason"]
        return None

    await client.until(lambda: found() is not None)
    return found()


def statements(log_path):
    """Return the SQL text of every logged statement, without bound values."""
    for line in log_path.read_text().splitlines():
        entry = json.loads(line)
        if entry["error_severity"] == "LOG":
            yield entry["message"]
        yield entry.get("statement", "")
        yield entry.get("internal_query", "")


async def send_hostile(client, number, text):
    """Put a hostile text wherever a client has a say; return how often it was subscribed."""
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    entries = (
        *(table(text), table("notes", schema=text), table("notes", select=[text])),
        table("notes", filter=f"{text.replace('=', '')}=eq.1"),
        *(table("notes", filter=f"price=eq.{quoted}"), {"event": text, "table": "notes"}),
        *(table("notes", filter=f"body={op}.{quoted}") for op in ("eq", "gt", "like")),
        table("notes", filter=f"body=in.({quoted},b)"),
        *(table("notes", filter=f"body=not.{op}.{quoted}") for op in ("ilike", "neq")),
        table("notes", filter=f"body=imatch.{MARK}"),
        table("notes", filter=f"doc=neq.{json.dumps(text)}"),
    )
    access_token = token(text, app_metadata={text: text}, org=text)
    answers = [
        await answer(client, f"{text[:20]} {number} {place}", access_token, entry)
        for place, entry in enumerate(entries)
    ]
    return answers.count("Subscribed to PostgreSQL")


async def test_nothing_that_a_client_says_is_ever_sql_text(attacked):
    served, url, log_path = attacked
    async with connected(served) as client, contextlib.AsyncExitStack() as stack:
        for number, text in enumerate(HOSTILE):
            hostile = await stack.enter_async_context(connected(served))
            assert await send_hostile(hostile, number, text) >= 5
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
            assert await answer(client, "end", token(), table("notes")) == (
                "Subscribed to PostgreSQL"
            )
            await sql.execute("delete from notes")
            await sql.execute("insert into notes values (1, null, 'b', 1.5, '{}', 1)")
            await sql.execute("insert into notes values (2, %s, 'end', 1.5, '{}', 1)", (BOB,))
            await client.until(lambda: client.changes("end"))
            cursor = await sql.execute("select array_agg(id order by id) from notes")
            assert await cursor.fetchone() == ([1, 2],)
    texts = list(statements(log_path))
    assert any("set_config" in text for text in texts)
    assert [text for text in texts if MARK in text] == []
    # They did get there, as bound values.
    assert MARK in log_path.read_text()


async def test_what_one_may_not_see_looks_like_what_does_not_exist(attacked):
    served, _, _ = attacked
    async with connected(served) as client:
        for number, access_token in enumerate((ANON_KEY, token())):
            texts = {
                (await answer(client, f"t{number}{name}", access_token, table(name))).replace(
                    name, "NAME"
                )
                for name in ("absent", "unpublished", "ungranted", "unprotected", "pg_authid")
            }
            assert len(texts) == 1
            closed = [
                await answer(client, f"s{number}{name}", access_token, table(name, schema="closed"))
                for name in ("things", "absent")
            ]
            assert closed[0].replace("things", "absent") == closed[1]
            for place, rest in enumerate(
                ("eq.1", "eq.x", "like.x", "is.true", "in.(1)", "match.(")
            ):
                columns = [
                    await answer(
                        client,
                        f"c{number}{place}{name}",
                        access_token,
                        table("notes", filter=f"{name}={rest}"),
                    )
                    for name in ("salary", "absent")
                ]
                assert columns[0].replace("salary", "absent") == columns[1]
                assert "invalid column for filter" in columns[0]


async def test_a_table_that_one_may_read_is_refused_with_what_is_wrong(attacked):
    served, _, _ = attacked
    async with connected(served) as client:
        told = await answer(client, "k", token(), table("keyless"))
        assert "the table can not be streamed: it has no primary key" in told
        told = await answer(client, "h", token(), table("headless"))
        assert "the table can not be streamed: the role may not SELECT the primary key" in told


async def test_every_refused_subscription_is_counted_by_its_kind(attacked):
    served, _, _ = attacked
    refused = {
        "not_enabled": [table("absent"), table("ungranted"), table("no", schema="pg_catalog")],
        "malformed": [
            *(table("notes", filter="id=wrong.1"), table("notes", select="id"), {}),
            table("*", select=["id"]),
        ],
        "not_accepted": [
            *(table("notes", filter=f"{name}=eq.1") for name in ("salary", "absent")),
            *(table("notes", filter="id=eq.x"), table("keyless")),
            *(table("notes", filter=f"body=match.{bad}") for bad in ("(", "[")),
            table("notes", filter="price=eq.1e999999"),
        ],
    }

    def counted(reason):
        name = f'heliograph_subscriptions_refused_total{{reason="{reason}"}}'
        return served.metrics().get(name, 0)

    async with connected(served) as client:
        for reason, entries in refused.items():
            before = counted(reason)
            for place, entry in enumerate(entries):
                await answer(client, f"{reason} {place}", token(), entry)
            assert counted(reason) - before == len(entries)


def forged():
    """Return tokens that must not be accepted, by what is wrong with them."""
    now = int(time.time())
    good = {"role": "authenticated", "sub": BOB, "exp": now + 600}
    pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = pair.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    def signed(claims, **header):
        return jwt.encode(claims, JWT_SECRET, algorithm="HS256", headers=header)

    head, body, signature = signed(good).split(".")
    return {
        **{
            f"alg {name}": f"{part({'alg': name, 'typ': 'JWT'})}.{part(good)}."
            for name in ("none", "None", "NONE", "")
        },
        "another secret": jwt.encode(good, "x" * 40, algorithm="HS256"),
        "public key as secret": f"{part({'alg': 'HS256'})}.{part(good)}.{part(public.decode())}",
        "rsa": jwt.encode(good, pair, algorithm="RS256", headers={"kid": "../../dev/null"}),
        "own key inside": jwt.encode(
            good, pair, algorithm="RS256", headers={"jwk": {"kty": "RSA"}}
        ),
        "crit": signed(good, crit=["x"]),
        "another body": f"{head}.{part({**good, 'sub': 'someone else'})}.{signature}",
        "exp signed as text": _signed_raw({**good, "exp": str(now + 600)}),
        "exp true": _signed_raw({**good, "exp": True}),
        "expired": signed({**good, "exp": now - 60}),
        "without exp": signed({"role": "authenticated", "sub": BOB}),
        "without role": signed({"sub": BOB, "exp": now + 600}),
        "another role": signed({**good, "role": "postgres"}),
        "role list": _signed_raw({**good, "role": ["service_role"]}),
        "not yet": signed({**good, "nbf": now + 600}),
        "NUL": signed({**good, "sub": "a\x00b"}),
        "two parts": f"{head}.{body}",
        "four parts": f"{head}.{body}.{signature}.{signature}",
        "huge": signed({**good, "filler": "x" * 9_000}),
        "no token": "planted-no-token",
        "opaque": "sb_secret_planted_but_unknown",
    }


def _signed_raw(claims):
    """Sign a payload that the library would refuse to encode."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), JWT_SECRET, algorithm="HS256")


async def test_forged_tokens_open_nothing_at_the_handshake_the_join_and_the_refresh(attacked):
    served, url, _ = attacked
    async with connected(served) as client:
        for number, (what, bad) in enumerate(forged().items()):
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with connected(served, bad):
                    pass
            assert refused.value.response.status_code == 401, what
            if not bad.startswith("sb_"):
                told = await answer(client, f"j{number}", bad, table("notes"))
                assert re.match(r"[A-Z]\w+: ", told), (what, told)
                assert "Subscribed" not in told
            joined = await answer(client, f"r{number}", token(), table("notes"))
            assert joined == "Subscribed to PostgreSQL"
            frame = ["9", "5", f"realtime:r{number}", "access_token", {"access_token": bad}]
            await client.socket.send(json.dumps(frame))
            if bad.startswith("sb_"):
                # Clients send their API key here too; it changes nothing.
                async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
                    await sql.execute("insert into notes values (%s, %s)", (-1 - number, BOB))
                await client.until(lambda topic=f"r{number}": client.changes(topic))
                continue
            closing = ["phx_close", f"realtime:r{number}"]
            await client.until(
                lambda wanted=closing: any([f[3], f[2]] == wanted for f in client.frames)
            )


async def test_no_secret_and_no_traceback_is_in_a_log_an_error_or_a_metric(attacked):
    served, url, _ = attacked
    planted = token("planted-subject")
    async with connected(served) as client:
        await answer(client, "one", planted, table("notes"))
        for text in (f"\n{planted}", f'{{"apikey":"{planted}"', planted):
            await client.socket.send(text)
        await client.socket.send(
            json.dumps(["1", "2", "realtime:one", f"event {planted}", {"access_token": planted}])
        )
        await answer(client, f"topic {planted[:200]}", planted, table(planted))
        await answer(client, "last", planted, {"event": "*", "user_token": planted, "x": planted})
    for key in (planted + "x", OPAQUE["HELIOGRAPH_SECRET_KEY"] + "x", "planted-no-key"):
        with contextlib.suppress(websockets.InvalidStatus):
            await websockets.connect(served.websocket_url + key)
    async with connected(served, SERVICE_KEY), connected(served, OPAQUE["HELIOGRAPH_SECRET_KEY"]):
        pass
    judge = Settings.from_environ({"DATABASE_URL": url, "HELIOGRAPH_JWT_SECRET": JWT_SECRET})
    password = judge.judge_password or Secret("")
    log = served.log_path.read_text()
    metrics = "\n".join(served.metrics())
    for secret in (
        *(JWT_SECRET, ANON_KEY, SERVICE_KEY, planted, planted.split(".")[2], "planted"),
        *(password.reveal(), *OPAQUE.values()),
    ):
        assert secret not in log
        assert secret not in metrics
    assert "eyJ" not in log
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len(lines) >= len(log.splitlines()) - 1


async def test_the_judging_password_is_never_in_postgresqls_log(attacked):
    served, url, log_path = attacked
    async with connected(served) as client:
        await answer(client, "p", token(), table("notes"))
    settings = Settings.from_environ({"DATABASE_URL": url, "HELIOGRAPH_JWT_SECRET": JWT_SECRET})
    password = settings.judge_password
    assert password is not None
    assert password.reveal() not in log_path.read_text()


#: Takes PostgreSQL much longer than JUDGEMENT_TIMEOUT_S on a text of `SLOW_TEXT`.
SLOW_FILTER = r"body=match.^(.+)(.+)\1\2\1x$"
SLOW_TEXT = "ab" * 4_000 + "cx"


@pytest.mark.parametrize("is_same_person", [False, True])
async def test_a_filter_that_takes_forever_costs_its_own_channel_only(attacked, is_same_person):
    served, url, _ = attacked
    hostile_token = token(nonce=1)
    other_token = hostile_token if is_same_person else token(nonce=2)
    async with connected(served) as hostile, connected(served) as other:
        filtered = table("notes", filter=SLOW_FILTER)
        assert "Subscribed" in await answer(hostile, "slow", hostile_token, filtered)
        assert "Subscribed" in await answer(other, "own", other_token, table("notes"))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sql:
            for _ in range(3):
                await sql.execute(
                    "insert into notes select coalesce(max(id), 0) + 1, %s, %s, 1, '{}', 1"
                    " from notes",
                    (BOB, SLOW_TEXT),
                )
        await hostile.until(lambda: len(hostile.systems("slow")) > 1, 60)
        await other.until(lambda: len(other.changes("own")) == 3)
        assert "judgement" in hostile.systems("slow")[1]["message"]
        assert hostile.changes("slow") == []
        assert len(other.systems("own")) == 1
