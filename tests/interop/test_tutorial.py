"""docs/tutorial/first-subscription.md, step by step, with the code that stands there."""

import asyncio
import contextlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from fixtures.pages import code_blocks, commands

pytestmark = [pytest.mark.interop, pytest.mark.postgres, pytest.mark.asyncio]

PAGE = "tutorial/first-subscription.md"


@contextlib.asynccontextmanager
async def watching(server, folder, key):
    """Run `watch.py`; yield a function that reads the next line."""
    [source] = code_blocks(PAGE, "python")
    assert source.count("http://127.0.0.1:8000") == 1
    program = folder / "watch.py"
    program.write_text(source.replace("http://127.0.0.1:8000", server.url))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(program)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KEY": key},
    )

    async def next_line():
        async with asyncio.timeout(30):
            return (await process.stdout.readline()).decode()

    try:
        assert await next_line() == "Subscribed to PostgreSQL\n"
        yield next_line
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def publish(server):
    [command] = commands(PAGE, "heliograph publish")
    program, *arguments = shlex.split(command)
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name(Path(program).name)), *arguments),
        env={**os.environ, "DATABASE_URL": server.database_url},
    )
    assert await process.wait() == 0


async def test_the_tutorial_shows_what_it_says(server, tmp_path):
    table, writes = code_blocks(PAGE, "sql")
    server.sql(table)
    await publish(server)
    [insert] = commands(PAGE, "psql")
    [shown] = code_blocks(PAGE, "")
    async with watching(server, tmp_path, server.service_role_key) as next_line:
        server.sql(shlex.split(insert)[-1])
        assert await next_line() == shown
    async with watching(server, tmp_path, server.anon_key) as next_line:
        for statement in writes.splitlines():
            server.sql(statement)
        told = re.findall(r"-- (?:(INSERT|UPDATE|DELETE \{.*?\})|nothing arrives)", writes)
        assert told == ["", "UPDATE", "UPDATE", "DELETE {'id': 1}"]
        for kind in filter(None, told):
            assert (await next_line()).startswith(kind)
