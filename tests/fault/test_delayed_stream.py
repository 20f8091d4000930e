"""The stream comes late: clients join by what the catalog says before the server hears of it."""

import psycopg
import pytest

from fixtures.black_hole import black_hole
from fixtures.raw_client import table
from fixtures.restarted import restarted
from fixtures.resuming import following
from fixtures.server_process import slot_of

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.asyncio]

ADD = "alter publication supabase_realtime add table w"


async def test_a_late_writer_that_has_ended_before_the_change_is_heard_of_is_told(
    postgres_url, tmp_path
):
    """It began behind the transaction that changes the publication, and wrote before its COMMIT."""
    connect = psycopg.AsyncConnection.connect
    async with (
        black_hole(postgres_url) as relay,
        restarted(
            postgres_url,
            tmp_path,
            HELIOGRAPH_SLOT=slot_of(postgres_url),
            HELIOGRAPH_REPLICATION_URL=relay.url,
        ) as running,
        await connect(postgres_url) as altering,
        await connect(postgres_url) as late,
        following(running.server) as client,
    ):
        await altering.execute("create table w (id int primary key)")
        await altering.commit()
        await altering.execute(ADD)
        await late.execute("insert into w values (1)")
        relay.hold()
        await altering.commit()
        key = running.server.service_role_key
        said = await client.join("w", key, table("w", positions=True))
        assert said["message"] == "Subscribed to PostgreSQL"
        # Who loads now does not find the row, and the stream does not have it.
        await late.commit()
        relay.release()
        await client.until(lambda: client.resyncs("w"))
        assert client.resyncs("w") == ["publication_changed"]
        assert client.systems("w")[1]["message"] == "resync"
        await altering.execute("insert into w values (2)")
        await altering.commit()
        assert await client.settled("w", 1)
        assert client.ids("w") == [2]
