"""A minimal realtime client (serializer 2.0.0) that keeps every frame as it came."""

import asyncio
import contextlib
import json

import websockets


class RawClient:
    """One socket; remembers frames by topic."""

    def __init__(self, socket):
        self.socket = socket
        self.frames = []
        self._news = asyncio.Event()
        self._ref = 0

    @classmethod
    async def connect(cls, server, *, max_queue=None):
        url = f"{server.websocket_url}/websocket?vsn=2.0.0&apikey={server.anon_key}"
        return cls(await websockets.connect(url, max_queue=max_queue))

    async def read(self):
        async for text in self.socket:
            self.frames.append(json.loads(text))
            self._news.set()

    async def until(self, condition, deadline_s=20.0):
        async with asyncio.timeout(deadline_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def join(self, topic, token, *entries):
        """Join and wait for the system message; return it."""
        self._ref += 1
        ref = str(self._ref)
        payload = {"config": {"postgres_changes": list(entries)}, "access_token": token}
        await self.socket.send(json.dumps([ref, ref, f"realtime:{topic}", "phx_join", payload]))
        await self.until(lambda: self.systems(topic))
        return self.systems(topic)[0]

    def systems(self, topic):
        wanted = ("system", f"realtime:{topic}")
        return [frame[4] for frame in self.frames if (frame[3], frame[2]) == wanted]

    def errors(self, topic):
        """Return the texts of the errors told, ``resync`` among them."""
        return [said["message"] for said in self.systems(topic) if said["status"] == "error"]

    def changes(self, topic):
        wanted = ("postgres_changes", f"realtime:{topic}")
        return [frame[4]["data"] for frame in self.frames if (frame[3], frame[2]) == wanted]


def table(name, **more):
    return {"event": "*", "schema": "public", "table": name, **more}


async def write_until(client, is_seen, write, numbers=range(1_000, 1_400)):
    """Await ``write(number)`` for one number after the other until the client has seen it."""
    for number in numbers:
        await write(number)
        with contextlib.suppress(TimeoutError):
            await client.until(is_seen, 0.05)
            return
    raise AssertionError("nothing of what was written has arrived")
