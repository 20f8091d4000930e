"""Raw clients: with positions as docs/howto/resume.md says, and without any.

Each is cut again and again by `Cutter`. What it is told goes to its `Keeper` when it counts.
"""

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass

import msgspec

from fixtures.kept_channel import KeptChannel
from soak.keeper import Change, Keeper
from soak.ledger import LawBrokenError
from soak.schema import View
from soak.wire import open_socket
from soak.world import now_s

TOPIC = "realtime:soak"
HEARTBEAT_S = 20.0
JOIN_DEADLINE_S = 20.0

#: What a client remembers for the report.
JOURNAL = 400


class _Payload(msgspec.Struct):
    data: Change


_FRAME = msgspec.json.Decoder(tuple[str | None, str | None, str, str, msgspec.Raw])
_PAYLOAD = msgspec.json.Decoder(_Payload)


@dataclass(frozen=True)
class Plan:
    """What kind of client one is.

    Attributes:
        name: In reports.
        view: What it follows.
        keeps_positions: Otherwise it loads anew after each join.
        is_slow: Whether it stops reading now and then.
        is_absent: Whether it stays away longer than the ring reaches now and then.
        keeper: How it keeps its rows.
    """

    name: str
    view: View
    keeps_positions: bool = True
    is_slow: bool = False
    is_absent: bool = False
    keeper: type[Keeper] = Keeper


class Client:
    """One client, whatever its connection does."""

    def __init__(self, world, plan):
        self.plan = plan
        self.keeper = plan.keeper(plan.view, world.ledger, keeps_positions=plan.keeps_positions)
        self.socket = None
        self._frozen = []
        self.is_away = False
        self.join_part = 1.0
        self._world = world
        self._ledger = world.ledger
        self._chance = world.chance_of(plan.name)
        self._channel = KeptChannel(self._tell, keeps_positions=plan.keeps_positions)
        self._loading = None
        self._heard_s = now_s()
        self._trouble = None
        self.journal = deque(maxlen=JOURNAL)

    @property
    def is_prompt(self):
        """Tell whether it should follow at once."""
        return not (self.plan.is_slow or self.plan.is_absent)

    def has_followed(self, number):
        """Tell whether everything up to a commit is in its rows."""
        return self._loading is None and self.keeper.applied >= number

    async def run(self):
        """Connect again and again until the end."""
        while not self._world.is_over.is_set():
            if not self.is_away:
                with contextlib.suppress(OSError, TimeoutError):
                    await self._session()
                self._ledger.counts["connections"] += 1
                self._after_session()
            await self._world.over_within(self._chance.uniform(0, 0.4))
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))

    def end(self):
        """End all connections, at the end of the run."""
        for socket in (self.socket, *self._frozen):
            if socket is not None:
                socket.abort()

    async def _session(self):
        buffer_bytes = 8_192 if self.plan.is_slow else None
        world = self._world
        self._trouble = None
        self.socket = await open_socket(
            world.port, world.path, self._receive, buffer_bytes=buffer_bytes
        )
        try:
            self._join()
            while not world.is_over.is_set():
                await asyncio.wait((self.socket.closed,), timeout=HEARTBEAT_S)
                if self.socket.closed.done():
                    self.socket.closed.result()
                    return
                self.socket.send(json.dumps([None, "h", "phoenix", "heartbeat", {}]))
        finally:
            if self.socket.is_frozen:
                self._frozen.append(self.socket)
            else:
                self.socket.abort()
            self.socket = None

    def _join(self):
        entries = self.plan.view.entries()
        if self.plan.keeps_positions:
            entries = [
                {**entry, "positions": True, "since": self._channel.position} for entry in entries
            ]
        token = self._world.token(self.plan.view.user)
        payload = {"config": {"postgres_changes": entries}, "access_token": token}
        part, self.join_part = self.join_part, 1.0
        self.journal.append(("join", self._channel.position, self.keeper.followed, part))
        self.socket.send(json.dumps(["1", "1", TOPIC, "phx_join", payload]), part=part)
        if part < 1:
            self.socket.abort()

    def _after_session(self):
        self._channel.drop_waiting()
        if not self.plan.keeps_positions:
            self.keeper.cut()
        if isinstance(self._trouble, LawBrokenError):
            self._ledger.break_law(self.plan.name, self._trouble)
            self._write_journal()
            # From the beginning, so that one mistake is reported once.
            self._channel.position = None

    def _write_journal(self):
        path = self._world.folder / f"{self.plan.name}.journal"
        with path.open("a") as file:
            file.write(f"--- {self._trouble}\n")
            file.writelines(f"{entry}\n" for entry in self.journal)

    # --- what is told -----------------------------------------------------------------------------

    def _receive(self, data):
        _, _, topic, event, payload = _FRAME.decode(data)
        try:
            if event == "postgres_changes":
                self._channel.receive_change(_PAYLOAD.decode(payload).data)
            elif event == "system" and topic == TOPIC:
                self._system(json.loads(bytes(payload)))
            elif event in ("phx_error", "phx_close") or (
                event == "phx_reply" and json.loads(bytes(payload)).get("status") == "error"
            ):
                self._give_up(f"{event} {bytes(payload)!r}")
        except LawBrokenError as error:
            self._trouble = error
            self.socket.abort()

    def _system(self, said):
        message = said["message"]
        if message == "position":
            self._heard_s = now_s()
        elif message == "Subscribed to PostgreSQL":
            self.journal.append(("subscribed",))
            if self._channel.position is not None:
                self._ledger.counts["resumes asked for"] += 1
        elif not message.startswith("resync") and said["status"] == "error":
            self._give_up(message)
        reason = self._channel.receive_system(said)
        if reason is not None:
            if message.startswith("resync"):
                self._explain(reason)
            self._load(reason)

    def _give_up(self, text):
        self.journal.append(("refused", text))
        self._ledger.counts["refused joins and closed channels"] += 1
        self.socket.abort()

    def _explain(self, reason):
        """Note a ``resync``, and whether anything was done that explains it."""
        self.journal.append(("resync", reason, self.keeper.streamed, self.keeper.followed))
        self._ledger.counts[f"resync {reason}"] += 1
        keeper = self.keeper
        has_begun = keeper.base >= 0
        if has_begun and not self._ledger.is_explained(
            reason, seen=keeper.streamed, heard_s=self._heard_s, user=self.plan.view.user
        ):
            text = f"resync {reason} at commit {keeper.streamed}"
            self._ledger.break_law(self.plan.name, LawBrokenError("unexplained", text))
            self._write_journal()

    # --- loading and telling ----------------------------------------------------------------------

    def _load(self, reason):
        work = self._run_load(reason, self._loading)
        self._loading = asyncio.create_task(work)

    async def _run_load(self, reason, before):
        if before is not None:
            await asyncio.wait((before,))
        if self._loading is not asyncio.current_task():
            # Another one waits already.
            return
        rows, number = await self._world.load(self.plan.view)
        self._ledger.counts["loads"] += 1
        if self._loading is not asyncio.current_task():
            return
        self.journal.append(("loaded", reason, number))
        self.keeper.loaded(rows, number)
        self._loading = None
        try:
            self._channel.loaded()
        except LawBrokenError as error:
            self._trouble = error
            if self.socket is not None:
                self.socket.abort()

    def _tell(self, changes):
        for change in changes:
            self.journal.append(change)
            before = self.keeper.events
            self.keeper.told(change)
            self._ledger.counts["events delivered"] += self.keeper.events - before


class Cutter:
    """Cuts clients, so many times a second: now, after some bytes more, or within their join."""

    def __init__(self, world, clients, per_s):
        self._world = world
        self._clients = clients
        self._per_s = per_s
        self._chance = world.chance_of("cuts")

    async def run(self):
        """Cut until the end; not while a round is settled."""
        began_s, done = now_s(), 0
        while not await self._world.over_within(self._chance.expovariate(self._per_s)):
            if not self._world.gate.is_open:
                began_s, done = now_s(), 0
                continue
            due = int((now_s() - began_s) * self._per_s) - done
            for client in self._chance.sample(self._clients, min(max(due, 0), 8)):
                done += 1
                self._cut(client)

    def _cut(self, client):
        counts, chance = self._world.ledger.counts, self._chance
        if not hasattr(client, "join_part"):
            counts["cuts of the official client"] += client.cut(chance)
            return
        socket = client.socket
        if socket is None or not socket.opened.done():
            client.join_part = chance.random()
            counts["cuts within a join"] += 1
        elif chance.random() < 0.6:
            socket.cut_after(round(10 ** chance.uniform(0.5, 4.7)))
            counts["cuts after some bytes"] += 1
        elif chance.random() < 0.2:
            socket.freeze()
            counts["cuts of which the server learns nothing"] += 1
        else:
            socket.abort()
            counts["cuts at some moment"] += 1


async def read_slowly(world, client):
    """Have a client stop reading now and then."""
    chance = world.chance_of(f"slow {client.plan.name}")
    while not await world.over_within(chance.uniform(1, 6)):
        socket = client.socket
        if socket is None or not world.gate.is_open:
            continue
        with world.ledger.cause("read_slowly"):
            socket.transport.pause_reading()
            await world.over_within(chance.choice((0.5, 2, 5, 13)))
            if not socket.closed.done():
                socket.transport.resume_reading()
