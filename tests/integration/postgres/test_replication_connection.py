"""The replication connection and the event loop, whose sockets have numbers that are used again."""

import asyncio
import contextlib
import select
import socket

import psycopg
import pytest

from fixtures.reader import PUBLICATION, Database, slot_name
from heliograph.config import Secret
from heliograph.postgres.replication_connection import ReplicationConnection

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


@contextlib.asynccontextmanager
async def streaming(database):
    """Open a connection that streams and waits for input."""
    slot = slot_name(database.url)
    database.run("create table notes (id int primary key)")
    database.publish("notes")
    database.run(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    opening = ReplicationConnection.open(Secret(database.url), slot_name=slot, may_wait=False)
    connection = await opening
    try:
        await connection.start((PUBLICATION,))
        waiting = asyncio.create_task(connection.wait_input())
        await asyncio.sleep(0)
        yield connection
        await waiting
    finally:
        await connection.close()


def lose_socket(connection, database):
    """Have libpq close the socket of a connection that was ended; return its number.

    It may do so in any call, also while something is sent, and reports it by a later one.
    """
    number = connection._pgconn.socket
    database.end_stream()
    with pytest.raises(psycopg.OperationalError):
        while select.select([number], [], [], 20)[0]:
            connection._pgconn.consume_input()
    return number


def open_pair(number):
    """Return a connected pair, the first of which has a number that just became free."""
    pairs = []
    while not pairs or pairs[-1][0].fileno() != number:
        assert len(pairs) < 100
        pairs.append(socket.socketpair())
    ours = pairs.pop()
    for each in pairs:
        each[0].close()
        each[1].close()
    return ours


async def test_whoever_gets_the_number_of_a_lost_socket_is_left_alone(postgres_url):
    database = Database(postgres_url)
    try:
        async with streaming(database) as connection:
            near, far = open_pair(lose_socket(connection, database))
            reader, writer = await asyncio.open_connection(sock=near)
            connection.receive_input()
            await connection.close()
            far.sendall(b"heard\n")
            async with asyncio.timeout(10):
                assert await reader.readline() == b"heard\n"
            writer.close()
            far.close()
    finally:
        database.close()
