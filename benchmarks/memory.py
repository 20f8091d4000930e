"""What an idle client costs: resident memory of the server per socket and per subscription.

Usage: make bench NAME=memory. The server is the real one, its clients subscribe to a table and then
nothing happens. Measured is the resident set of the server's process at two counts; reported is the
slope between them, so that what the server needs anyway is not divided among the clients. Buffers
of the kernel are not in it. Every channel has a topic of its own.

sockets        one channel on each socket, all with the same role and claims
subscriptions  all channels on one socket, whose bounds are raised for that
users          as ``sockets``, but every socket is another user: claims and a lane of its own

A socket alone is the first minus the second. The number of open files bounds the counts; when it is
too low they are reduced, and that is said.
"""

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _native import handshake, join_text, masked
from _results import machine, write_results

from fixtures.postgres import binaries_of, run_test_cluster
from fixtures.server import run_server

MANY = 5_000
AT_ONCE = 50
SOCKET_GOAL_KB, SUBSCRIPTION_GOAL_KB = 15.0, 10.0
DEADLINE_S = 50.0
POSTGRES = 18
BOUNDS = {
    "HELIOGRAPH_CHANNELS_PER_SOCKET_MAX": str(2 * MANY),
    "HELIOGRAPH_JOINS_PER_SECOND_MAX": str(2 * MANY),
    "HELIOGRAPH_MESSAGES_PER_SECOND_MAX": str(2 * MANY),
}

SCHEMA = """
create table ticks (id bigserial primary key, owner uuid);
alter table ticks enable row level security;
create policy own on ticks for select to authenticated using (owner = (select auth.uid()));
alter publication supabase_realtime add table ticks;
"""


def counts():
    """Return the two counts that the limit of open files allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = min(MANY, hard - 500)
    if many < MANY:
        print(f"the limit of open files ({hard}) allows {many} sockets only")
    return many // 5, many


def resident_kb(server):
    """Return the resident set in KB once it stands still for a second."""
    status = Path(f"/proc/{server.process.pid}/status")
    last, since_s = -1, time.monotonic()
    end_s = since_s + 10
    while time.monotonic() < min(since_s + 1, end_s):
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        found = int(line.split()[1])
        if abs(found - last) > 64:
            last, since_s = found, time.monotonic()
        time.sleep(0.05)
    return last


class Socket:
    """A client that subscribes and then says nothing."""

    async def open(self, server):
        host, port = server.url.removeprefix("http://").split(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        self.writer.write(handshake(server.anon_key))
        await self.reader.readuntil(b"\r\n\r\n")

    async def join(self, token, topic):
        self.writer.write(masked(join_text("ticks", token, topic)))
        await self.reader.readuntil(b"Subscribed to PostgreSQL")


async def open_sockets(server, sockets, wanted, token_of):
    """Open sockets with one channel each until there are as many as wanted."""

    async def open_one(number):
        socket = Socket()
        await socket.open(server)
        await socket.join(token_of(number), f"realtime:room-{number}")
        sockets.append(socket)

    while len(sockets) < wanted:
        first = len(sockets)
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(first + AT_ONCE, wanted)):
                group.create_task(open_one(number))


async def slope_of_sockets(server, few, many, token_of):
    """Return KB per socket with one subscription."""
    sockets = []
    async with asyncio.timeout(DEADLINE_S):
        await open_sockets(server, sockets, few, token_of)
        at_few = resident_kb(server)
        await open_sockets(server, sockets, many, token_of)
        at_many = resident_kb(server)
    still_open = server.metrics()["heliograph_connections"]
    if still_open != many:
        sys.exit(f"{still_open} of {many} sockets were open when it was measured")
    for socket in sockets:
        socket.writer.transport.abort()
    return (at_many - at_few) / (many - few)


async def slope_of_subscriptions(server, few, many):
    """Return KB per further channel of one socket."""
    socket = Socket()
    async with asyncio.timeout(DEADLINE_S):
        await socket.open(server)
        for number in range(few):
            await socket.join(server.service_role_key, f"realtime:room-{number}")
        at_few = resident_kb(server)
        for number in range(few, many):
            await socket.join(server.service_role_key, f"realtime:room-{number}")
        at_many = resident_kb(server)
    still_joined = server.metrics()["heliograph_channels"]
    if still_joined != many:
        sys.exit(f"{still_joined} of {many} channels were joined when it was measured")
    socket.writer.transport.abort()
    return (at_many - at_few) / (many - few)


def run(cluster, measure):
    """Measure on a server of its own: memory that was given back once is not returned to Linux."""
    with tempfile.TemporaryDirectory() as folder:
        database_url = cluster.create_database()
        with run_server(database_url, Path(folder), **BOUNDS) as server:
            server.sql(SCHEMA)
            return asyncio.run(measure(server))


def main():
    about = machine(POSTGRES)
    few, many = counts()

    def user(server):
        return lambda number: server.token(f"00000000-0000-0000-0000-{number:012d}")

    with run_test_cluster(binaries_of(POSTGRES)) as cluster:
        sockets_kb = run(
            cluster, lambda each: slope_of_sockets(each, few, many, lambda _: each.service_role_key)
        )
        subscription_kb = run(cluster, lambda each: slope_of_subscriptions(each, few, many))
        users_kb = run(cluster, lambda each: slope_of_sockets(each, few, many, user(each)))
    socket_kb = sockets_kb - subscription_kb
    print(f"socket alone / goal:            {socket_kb / SOCKET_GOAL_KB:.2f} (goal <= 1)")
    print(
        f"subscription / goal:            {subscription_kb / SUBSCRIPTION_GOAL_KB:.2f} (goal <= 1)"
    )
    print(f"KB per socket with one channel: {sockets_kb:.2f}")
    print(f"KB per further subscription:    {subscription_kb:.2f} (goal <= {SUBSCRIPTION_GOAL_KB})")
    print(f"KB per socket alone:            {socket_kb:.2f} (goal <= {SOCKET_GOAL_KB})")
    print(f"KB per socket of another user:  {users_kb:.2f}")
    write_results(
        "memory",
        {
            "goal_kb": {"socket": SOCKET_GOAL_KB, "subscription": SUBSCRIPTION_GOAL_KB},
            "counts": [few, many],
            "socket_with_one_channel_kb": round(sockets_kb, 2),
            "subscription_kb": round(subscription_kb, 2),
            "socket_alone_kb": round(socket_kb, 2),
            "socket_of_another_user_kb": round(users_kb, 2),
            "machine": about,
        },
    )


if __name__ == "__main__":
    main()
