"""A WebSocket server that does nothing but write one frame to every socket, as `epoll_writer` does.

Usage: python benchmarks/_bare_server.py picows|asgi COUNT FRAME_FILE WRITES_PER_S WRITES

What is left of the server when nothing of ours is in the way: the two libraries below the adapters,
each used as its adapter uses it. It talks like `native/epoll_writer.c`: the port, "ready" when
everybody is subscribed, and after a line on standard input the processor time in microseconds.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import picows
import uvicorn
import uvloop

from heliograph.core.wire.websocket_frame import split_server_frames
from heliograph.server.uvicorn_server import ListenSettings, bind_socket

ANSWER = "Subscribed to PostgreSQL"


class Listener(picows.WSListener):
    """Answers a subscriber, then keeps its transport."""

    def __init__(self, writes):
        super().__init__()
        self.writes = writes

    def on_ws_frame(self, transport, _frame):
        transport.send(picows.WSMsgType.TEXT, ANSWER.encode())
        self.writes.append(transport.underlying_transport.write)


async def run_picows(count, frame, pace, bound):
    writes = []
    server = await picows.ws_create_server(
        lambda _request: Listener(writes), sock=bound, backlog=2_048
    )

    async def write_all():
        for write in writes:
            write(frame)

    async with server:
        await drive(lambda: len(writes) == count, write_all, pace)


async def run_asgi(count, frame, pace, bound):
    sends = []
    _, payload = split_server_frames(frame)[0]
    text = payload.decode()

    async def app(_scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": ANSWER})
            sends.append(send)

    config = uvicorn.Config(
        app, ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off", log_config=None
    )

    async def write_all():
        for send in sends:
            await send({"type": "websocket.send", "text": text})

    async with asyncio.TaskGroup() as group:
        group.create_task(uvicorn.Server(config).serve(sockets=[bound]))
        await drive(lambda: len(sends) == count, write_all, pace)


async def drive(is_complete, write_all, pace):
    """Say when everybody is there, wait for the word, write at the pace, say what it took."""
    per_s, writes = pace
    while not is_complete():
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    before_s, begin_s = time.process_time(), time.monotonic()
    for number in range(1, writes + 1):
        await asyncio.sleep(max(0.0, begin_s + number / per_s - time.monotonic()))
        await write_all()
    await asyncio.sleep(0.01)
    print(round((time.process_time() - before_s) * 1e6), flush=True)
    # Neither library closes at once with so many sockets open; there is nothing to be tidied up.
    os._exit(0)


def main():
    kind, count, path, per_s, writes = sys.argv[1:]
    run = {"picows": run_picows, "asgi": run_asgi}[kind]
    frame = Path(path).read_bytes()
    bound = bind_socket(ListenSettings(port=0))
    bound.listen(2_048)
    print(bound.getsockname()[1], flush=True)
    uvloop.run(run(int(count), frame, (int(per_s), int(writes)), bound))


if __name__ == "__main__":
    main()
