"""A login that somebody else made must be safe before a server judges with it (S19)."""

import os
import subprocess

import psycopg
import pytest

from fixtures.server import JWT_SECRET, run_server
from fixtures.server_process import PROGRAM
from heliograph.postgres.migrate import migrate

pytestmark = pytest.mark.postgres


def start(database_url, folder, judge_url):
    """Run `heliograph dev` until it ends; it must end by itself."""
    return subprocess.run(
        [
            PROGRAM,
            *("dev", "--json", "--no-demo", "--port", "0", "--data-dir", str(folder / "data")),
        ],
        env={
            **{key: value for key, value in os.environ.items() if key != "CI"},
            "DATABASE_URL": database_url,
            "HELIOGRAPH_JWT_SECRET": JWT_SECRET,
            "HELIOGRAPH_JUDGE_URL": judge_url,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_login_that_can_do_more_is_refused_at_the_start(postgres_url, tmp_path):
    ended = start(postgres_url, tmp_path, postgres_url)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "HELIOGRAPH_JUDGE_URL: the login must not judge" in ended.stderr
    assert "role postgres is a superuser" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_login_that_does_not_exist_is_refused_at_the_start(postgres_url, tmp_path):
    judge_url = postgres_url.replace("postgres@", "nobody_at_all@")
    ended = start(postgres_url, tmp_path, judge_url)
    assert ended.returncode == 2
    assert "HELIOGRAPH_JUDGE_URL: " in ended.stderr
    assert "nobody_at_all" in ended.stderr


@pytest.mark.asyncio
async def test_a_login_of_one_s_own_judges(postgres_url, tmp_path):
    name = "judge_of_" + postgres_url.rsplit("/", 1)[1]
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await migrate(connection)
        await connection.execute(f"create role {name} login noinherit")
        await connection.execute(f"grant anon, authenticated to {name}")
        judge_url = postgres_url.replace("postgres@", f"{name}@")
        try:
            with run_server(postgres_url, tmp_path, HELIOGRAPH_JUDGE_URL=judge_url):
                cursor = await connection.execute(
                    "select count(*) from pg_stat_activity where usename = %s", (name,)
                )
                assert (await cursor.fetchone())[0] > 0
        finally:
            await connection.execute(f"drop role {name}")
