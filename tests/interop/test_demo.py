"""The README's session: the demo with its simulator, the example script and `heliograph tail`."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import psycopg
import pytest

from fixtures.server import JWT_SECRET, run_server
from fixtures.server_process import PROGRAM

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

EXAMPLE = Path(__file__).parents[2] / "examples" / "staff_orders.py"
CELIA = "celia@alerzal.example.com"
HER_BRANCH = "11000000-0000-4000-8000-000000001002"

# A sale at the counter, of what the branch has most of.
SALE = """
select optics.place_order(%(branch)s::uuid, null, jsonb_build_array(jsonb_build_object(
    'product_id', stock.product_id, 'quantity', 1)), true)
from public.product_branch_stock as stock join public.products as product on product.id = product_id
where stock.branch_id = %(branch)s::uuid and product.status = 'active'
order by stock.quantity - stock.reserved_quantity desc limit 1
"""


class Printer:
    """A program, and the lines that it has printed."""

    def __init__(self, process):
        self.process = process
        self.lines = []

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not (self.lines and condition(self.lines[-1])):
                line = (await self.process.stdout.readline()).decode()
                assert line, self.lines
                self.lines.append(line.strip())


@contextlib.asynccontextmanager
async def printing(*command, environ):
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environ},
    )
    try:
        yield Printer(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def place_orders(url):
    """Sell something in every branch, in Celia's last; return branch and number of each order."""
    with psycopg.connect(url, autocommit=True) as sql:
        branches = sql.execute(
            "select id::text from branches order by id::text = %s, id", (HER_BRANCH,)
        ).fetchall()
        placed = []
        for (branch,) in branches:
            [(order_id,)] = sql.execute(SALE, {"branch": branch}).fetchall()
            placed += sql.execute(
                "select branch_id::text, order_number from orders where id = %s", (order_id,)
            ).fetchall()
    assert placed[-1][0] == HER_BRANCH
    assert len({branch for branch, _ in placed}) == len(branches) == 4
    return placed


async def test_the_demo_shows_a_member_of_staff_the_orders_of_her_branch_only(
    postgres_url, tmp_path
):
    with run_server(postgres_url, tmp_path, has_demo=True) as server:
        environ = {
            "SUPABASE_URL": server.url,
            "DATABASE_URL": postgres_url,
            "HELIOGRAPH_JWT_SECRET": JWT_SECRET,
        }
        async with printing(PROGRAM, "keys", "--user", CELIA, environ=environ) as keys:
            environ["STAFF_TOKEN"] = (await keys.process.stdout.read()).decode().strip()
        tail = (PROGRAM, "tail", "orders", "--as", CELIA, "--json")
        async with (
            printing(sys.executable, "-u", str(EXAMPLE), environ=environ) as example,
            printing(*tail, environ=environ) as tailed,
        ):
            await example.until(lambda line: line == "subscribed")
            await tailed.until(lambda line: line.startswith("-- subscribed"))
            placed = await asyncio.to_thread(place_orders, postgres_url)
            hers = placed[-1]
            await example.until(lambda line: line.startswith(f"insert {hers[1]} "))
            await tailed.until(lambda line: f'"{hers[1]}"' in line and '"INSERT"' in line)
        # The simulator trades meanwhile: whatever else was told is of her branch too.
        assert {line.split()[-1] for line in example.lines[1:]} == {HER_BRANCH}
        changes = [json.loads(line) for line in tailed.lines[1:]]
        rows = [change.get("record") or change["old_record"] for change in changes]
        assert {row["branch_id"] for row in rows} == {HER_BRANCH}
