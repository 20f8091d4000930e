"""Users who keep the rows of their channels by positions, are cut off, lag, and come back.

A `View` keeps them as `KeptChannel` says. It notes its rows at every mark, to be compared with
what SELECT showed at that moment.
"""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

import websockets
from websockets.frames import CloseCode

from fixtures.kept_channel import KeptChannel, keep
from fixtures.raw_client import table
from fixtures.waiting import wait_until
from oracle.drawn_database import become


@dataclass
class View:
    """What one user keeps of one table, through one filter.

    Attributes:
        channel: Where it is, and what does not count yet.
        rows: By primary key.
        states: Its rows at each mark not compared yet.
        told_mark: The last mark told.
        loaded_mark: The last mark that the last load had seen.
        loads: Why it had to load, and the last mark told by then.
        told: Kinds of the changes that counted.
    """

    user: str
    table: str
    row_filter: tuple
    rows: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)
    told_mark: int = 0
    loaded_mark: int = 0
    loads: list = field(default_factory=list)
    told: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.channel = KeptChannel(self._count)

    @property
    def asked(self):
        return self.user, self.table, self.row_filter[1]

    def entries(self):
        """Return what its channel asks for."""
        more = {"filter": self.row_filter[0]} if self.row_filter[0] else {}
        wanted = table(self.table, **more)
        return [{**wanted, "positions": True, "since": self.channel.position}, table("marks")]

    async def load(self, reason, sql, claims):
        """Take the rows that SELECT shows, and the mark up to which it shows them."""
        self.loads.append((reason, self.told_mark))
        async with sql.transaction():
            await become(sql, claims)
            found = await sql.execute(
                f"select (select max(id) from marks), (select coalesce(json_agg(to_jsonb(t)), '[]')"
                f" from {self.table} t where {self.row_filter[1]})"
            )
            mark, rows = await found.fetchone()
        self.rows = {row["id"]: row for row in rows}
        self.loaded_mark = mark or 0
        self.channel.loaded()

    def _count(self, changes):
        """Take what came before a position."""
        for change in changes:
            if change["table"] == "marks":
                self._note(change["record"]["id"])
            else:
                self.told[change["type"]] += 1
                keep(self.rows, change)

    def _note(self, mark):
        """Note the rows at a mark, unless a load took them from a later moment.

        Marks come each once and in order; some are left out only where a load had seen them.
        """
        expected = range(self.told_mark + 1, max(self.told_mark, self.loaded_mark) + 2)
        assert mark in expected, (mark, expected, self)
        self.told_mark = mark
        if mark >= self.loaded_mark:
            self.states[mark] = dict(self.rows)

    def has_seen(self, mark):
        """Tell whether its rows are those of a mark or of a later moment."""
        return max(self.told_mark, self.loaded_mark) >= mark


class ViewClient:
    """One user's socket with a channel for each of its views.

    Attributes:
        may_read: Cleared: it stops reading.
        is_cut: Set: it is cut off after some characters, again and again.
        cuts: How often it was.
    """

    def __init__(self, url, token, claims, views, sql, *, rng, max_queue=None):
        self._url, self._token, self._claims = url, token, claims
        self.views, self._sql, self._max_queue = views, sql, max_queue
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._rng = rng
        self.is_cut = False
        self.cuts = 0

    async def live(self):
        """Connect, read, come back: until cancelled."""
        while True:
            socket = await wait_until(self._connected, "the server to accept", deadline_s=60)
            try:
                await self._read(socket)
            except websockets.ConnectionClosed as error:
                assert error.rcvd is None or error.rcvd.code != CloseCode.INTERNAL_ERROR
                self.may_read.set()
            finally:
                socket.transport.abort()

    async def _connected(self):
        try:
            return await websockets.connect(self._url, max_queue=self._max_queue)
        except (OSError, EOFError, websockets.WebSocketException):
            return None

    async def _read(self, socket):
        views = {f"realtime:{number}": view for number, view in enumerate(self.views)}
        for topic, view in views.items():
            view.channel.drop_waiting()
            payload = {
                "config": {"postgres_changes": view.entries()},
                "access_token": self._token,
            }
            await socket.send(json.dumps(["1", "1", topic, "phx_join", payload]))
        left = self._rng.randrange(3_000, 25_000)
        async for text in socket:
            left -= len(text)
            if self.is_cut and left < 0:
                self.cuts += 1
                return
            await self.may_read.wait()
            _, _, topic, event, said = json.loads(text)
            if event == "postgres_changes":
                views[topic].channel.receive_change(said["data"])
            elif event == "system":
                await self._take(views[topic], said)
            elif event != "phx_reply" or said["status"] != "ok":
                # Only a server that ends closes channels of good tokens.
                assert event in {"phx_close", "phx_error"}, text

    async def _take(self, view, said):
        reason = view.channel.receive_system(said)
        if reason is not None:
            await view.load(reason, self._sql, self._claims)
        assert said["status"] == "ok" or said["message"] == "resync", said
