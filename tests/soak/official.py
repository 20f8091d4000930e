"""The official Python client within our helper, its connection led through a relay that cuts it."""

import asyncio
import contextlib
from collections import deque

import msgspec
from realtime import AsyncRealtimeClient

from heliograph.client.resuming_channel import ResumingChannel
from soak.clients import JOURNAL
from soak.keeper import Change, Keeper
from soak.ledger import LawBrokenError
from soak.world import now_s


class Relay:
    """Leads connections to the server, and cuts them."""

    def __init__(self, port):
        self._target = port
        self._writers = set()
        self._leading = set()
        self._budget = None
        self.port = None

    @contextlib.asynccontextmanager
    async def running(self):
        """Listen until the block ends."""

        def accept(reader, writer):
            leading = asyncio.create_task(self._lead(reader, writer))
            self._leading.add(leading)
            leading.add_done_callback(self._leading.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for leading in tuple(self._leading):
                leading.cancel()
            await asyncio.gather(*self._leading, return_exceptions=True)

    def cut(self):
        """Cut every connection; return how many there were."""
        count = len(self._writers)
        for writer in tuple(self._writers):
            writer.transport.abort()
        return min(count, 1)

    def cut_after(self, size_bytes):
        """Cut once so many bytes more went through, in either direction."""
        self._budget = size_bytes

    async def _lead(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, up_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pass(self, reader, writer):
        with contextlib.suppress(OSError):
            # The other direction may have ended meanwhile; uvloop does not write to what is closed.
            while (data := await reader.read(65_536)) and not writer.transport.is_closing():
                if self._budget is not None:
                    if len(data) >= self._budget:
                        writer.write(data[: self._budget])
                        self._budget = None
                        break
                    self._budget -= len(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class OfficialClient:
    """Follows through `ResumingChannel`; what that hands on goes to the keeper."""

    def __init__(self, world, plan):
        self.plan = plan
        self.keeper = Keeper(plan.view, world.ledger)
        self._world = world
        self._ledger = world.ledger
        self._relay = Relay(world.port)
        self._trouble = asyncio.Event()
        self._loads = 0
        self._heard = (None, now_s())
        self.journal = deque(maxlen=JOURNAL)

    is_prompt = False

    def has_followed(self, number):
        """Tell whether everything up to a commit is in its rows."""
        return not self._loads and self.keeper.applied >= number

    def end(self):
        """End the connection, at the end of the run."""
        self._relay.cut()

    def cut(self, chance):
        """Cut its connection; return how many were."""
        if chance.random() < 0.6:
            self._relay.cut_after(round(10 ** chance.uniform(0.5, 4.7)))
            return 1
        return self._relay.cut()

    async def run(self):
        """Follow until the end; from the beginning after a broken law."""
        async with self._relay.running():
            while not self._world.is_over.is_set():
                self._trouble.clear()
                await self._follow()

    async def _follow(self):
        world = self._world
        client = AsyncRealtimeClient(
            f"ws://127.0.0.1:{self._relay.port}/realtime/v1",
            token=world.token(self.plan.view.user),
            max_retries=1_000_000,
        )
        client.initial_backoff = 0.1
        channel = ResumingChannel(client.channel("soak"), self._load)
        for entry in self.plan.view.entries():
            more = {name: entry[name] for name in ("table", "filter") if name in entry}
            channel.on_changes("*", self._told, schema="public", **more)
        self._channel = channel
        try:
            try:
                await channel.subscribe()
            except Exception as error:  # noqa: BLE001 - what the package raises when it is cut
                self.journal.append(("not connected", repr(error)))
                await world.over_within(0.3)
                return
            ending = asyncio.create_task(world.is_over.wait())
            trouble = asyncio.create_task(self._trouble.wait())
            await asyncio.wait((ending, trouble), return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            trouble.cancel()
        finally:
            with contextlib.suppress(Exception):
                await client.close()

    async def _load(self, reason):
        self._loads += 1
        try:
            self.journal.append(("load", reason, self.keeper.followed))
            if reason != "subscribed":
                self._ledger.counts[f"resync {reason}"] += 1
                self._check_reason(reason)
            rows, number = await self._world.load(self.plan.view)
            self._ledger.counts["loads"] += 1
            self.keeper.loaded(rows, number)
        finally:
            self._loads -= 1

    def _check_reason(self, reason):
        seen = self.keeper.streamed
        if not self._ledger.is_explained(
            reason, seen=seen, heard_s=self._heard[1], user=self.plan.view.user
        ):
            self._report(LawBrokenError("unexplained", f"resync {reason} at commit {seen}"))

    def _told(self, payload):
        if self._channel.position != self._heard[0]:
            self._heard = (self._channel.position, now_s())
        change = msgspec.convert(payload["data"], Change)
        self.journal.append(change)
        before = self.keeper.events
        try:
            self.keeper.told(change)
        except LawBrokenError as error:
            self._report(error)
            self._trouble.set()
        self._ledger.counts["events delivered"] += self.keeper.events - before

    def _report(self, error):
        if self._trouble.is_set():
            return
        self._ledger.break_law(self.plan.name, error)
        path = self._world.folder / f"{self.plan.name}.journal"
        with path.open("a") as file:
            file.write(f"--- {error}\n")
            file.writelines(f"{entry}\n" for entry in self.journal)
