"""The server's own connections."""

import pytest

from heliograph.postgres.admin import AdminDatabase

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


async def test_what_the_url_sets_stays_set_beside_our_timeouts(postgres_url):
    admin = AdminDatabase(f"{postgres_url}?options=-cwork_mem%3D7MB%20-csearch_path%3Dapart")
    await admin.open()
    try:
        async with admin.connection() as connection:
            found = [
                (await (await connection.execute(f"show {name}".encode())).fetchone())[0]
                for name in ("search_path", "work_mem", "statement_timeout", "lock_timeout")
            ]
    finally:
        await admin.close()
    # Nothing of ours is in anybody's schema, and nothing of theirs may stand in for PostgreSQL's.
    assert found == ['""', "7MB", "15s", "5s"]
