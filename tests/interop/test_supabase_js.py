"""The newest unmodified `@supabase/supabase-js` on Node 24, in both serializers."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.raw_client import ALICE, BOB
from fixtures.realtime_server import running_server
from heliograph.core.channels.replies import SUBSCRIBED_TEXT

ROOT = Path(__file__).parents[2]

NOTES = """
create table notes (id int primary key, owner uuid, body text, price numeric, tags text[]);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = (select auth.uid()));
alter table notes replica identity full;
alter publication supabase_realtime add table notes;
"""

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]


class Browser:
    """One Node process with one subscribed channel."""

    def __init__(self, process):
        self.process = process
        self.told = []

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition(self.told):
                line = await self.process.stdout.readline()
                assert line, f"node ended: {self.told}"
                self.told.append(json.loads(line))

    def changes(self):
        return [(one["change"], one["new"], one["old"]) for one in self.told if "change" in one]

    async def leave(self):
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()
        await self.until(lambda told: any("left" in one for one in told))
        assert self.told[-1]["left"] == "ok"


@contextlib.asynccontextmanager
async def browsing(server, token, *, vsn, row_filter=""):
    script = ROOT / "interop" / "live_rows.mjs"
    node = [sys.executable, str(ROOT / "scripts" / "node.py"), "node"]
    process = await asyncio.create_subprocess_exec(
        *node,
        str(script),
        server.url,
        server.anon_key,
        token,
        vsn,
        row_filter,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT / "interop",
    )
    browser = Browser(process)
    try:
        await browser.until(
            lambda told: any(one.get("system") == "Subscribed to PostgreSQL" for one in told)
        )
        yield browser
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_supabase_js_is_told_what_its_user_may_see(server, vsn):
    server.sql(NOTES)
    async with browsing(server, server.token(ALICE), vsn=vsn) as alice:
        assert any(one.get("status") == "SUBSCRIBED" for one in alice.told)
        server.sql(
            f"insert into notes values (1, '{ALICE}', 'a', 1.50, '{{x,\"y z\"}}')",
            f"insert into notes values (2, '{BOB}', 'SECRET', 2, null)",
            "update notes set body = 'b' where id = 1",
            f"update notes set owner = '{BOB}' where id = 1",
        )
        await alice.until(lambda told: sum("change" in one for one in told) >= 3)
        inserted, updated, left = alice.changes()
        row = {"id": 1, "owner": ALICE, "body": "a", "price": 1.5, "tags": ["x", "y z"]}
        assert inserted == ("INSERT", row, {})
        assert updated == ("UPDATE", {**row, "body": "b"}, row)
        assert left == ("DELETE", {}, {"id": 1})
        assert "SECRET" not in json.dumps(alice.told)
        await alice.leave()


async def test_supabase_js_filters_by_what_only_postgresql_can_judge(server):
    server.sql(NOTES)
    async with browsing(
        server, server.token(ALICE), vsn="2.0.0", row_filter="body=like.b%"
    ) as alice:
        server.sql(
            f"insert into notes values (1, '{ALICE}', 'apple'), (2, '{ALICE}', 'banana')",
            "update notes set body = 'blueberry' where id = 1",
        )
        await alice.until(lambda told: sum("change" in one for one in told) >= 2)
        told = [(kind, new["id"], new["body"]) for kind, new, _ in alice.changes()]
        assert told == [("INSERT", 2, "banana"), ("UPDATE", 1, "blueberry")]


def statuses(told):
    return [one["status"] for one in told if "status" in one and "system" not in one]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_supabase_js_joins_again_after_a_fault_of_ours_and_not_after_a_close(vsn):
    async with running_server() as server:
        served = SimpleNamespace(url=server.address.url, anon_key="anon")
        async with browsing(served, "user:ada", vsn=vsn) as ada:
            server.subscriptions.made[-1].outlet.close_failed("internal_error: a bug")
            await ada.until(
                lambda told: [one.get("system") for one in told].count(SUBSCRIBED_TEXT) == 2
            )
            assert statuses(ada.told) == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
            server.subscriptions.made[-1].send({"id": 7}, "INSERT")
            await ada.until(lambda told: any("change" in one for one in told))
            server.subscriptions.made[-1].outlet.close_hopeless("policy_too_slow: no")
            await ada.until(lambda told: statuses(told)[-1] == "CLOSED")
