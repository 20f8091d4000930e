"""A channel of the PyPI package ``realtime`` that loses nothing: it goes on where it was.

Wrap ``client.channel(…)``, then ``on_changes`` and ``subscribe`` (docs/howto/resume.md shows it).
Whole transactions are handed on, when the server has told the position behind them. ``load`` is
awaited at the beginning, when the server can not go on, and again a second after it failed.
Needs a Heliograph server.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any, TypeAlias

from realtime import AsyncRealtimeChannel as Channel, message as wire

Load: TypeAlias = Callable[[str], Awaitable[None]]


def _keep_positions() -> None:
    """Have the package keep the fields of ``system`` messages that it drops by default."""
    for model in (wire.SuccessSystemPayload, wire.ErrorSystemPayload):
        model.model_config["extra"] = "allow"
        model.model_rebuild(force=True)
    wire.SystemMessage.model_rebuild(force=True)
    wire.ServerMessageAdapter.rebuild(force=True)


class ResumingChannel:
    """See the module; ``position``: everything up to there was handed on, None if none was told."""

    def __init__(self, channel: Channel, load: Load, *, since: str | None = None) -> None:
        """Wrap a channel not subscribed yet; ``since``: the position of an equal earlier one."""
        _keep_positions()
        self.position, self._channel, self._load = since, channel, load
        self._loading: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[Callable[[Any], None], Any] | str] = deque()
        # The package has no hooks before a join and at an error: these two stand in their way.
        self._rejoin, self._on_error = attrgetter("_rejoin", "on_error")(channel)
        vars(channel).update(_rejoin=self._join, on_error=self._failed)
        channel.on_system(self._told)

    def on_changes(self, event: Any, listener: Callable[[Any], None], **entry: Any) -> None:
        """Listen to changes; arguments as of ``channel.on_postgres_changes``."""
        self._channel.on_postgres_changes(
            event, lambda payload: self._waiting.append((listener, payload)), **entry
        )

    async def subscribe(self, callback: Callable[..., None] | None = None) -> None:
        """Subscribe; see ``channel.subscribe``."""
        await self._channel.subscribe(callback)

    async def _join(self) -> None:
        for entry in self._channel.join_push.payload["config"]["postgres_changes"]:
            entry.update(positions=True, since=self.position)
        await self._rejoin()

    def _told(self, said: Any) -> None:
        if said.message == "Subscribed to PostgreSQL":
            self._waiting.clear()
            if self.position is None:
                self._reload("subscribed")
        elif said.message == "position":
            self._waiting.append(said.position)
            self._release()

    def _failed(self, payload: dict[str, Any]) -> None:
        if payload.get("message") == "resync":
            self._waiting = deque([payload["position"]])
            self._reload(payload["reason"])
        else:
            self._on_error(payload)

    def _reload(self, reason: str) -> None:
        work = self._run_load(reason, self._loading)
        self._loading = asyncio.create_task(work)  # noqa: TID251 - the channel has no task group

    async def _run_load(self, reason: str, before: asyncio.Task[None] | None) -> None:
        await asyncio.wait((before,)) if before else None
        has_failed = False
        try:
            await self._load(reason)
        except Exception:
            logging.getLogger(__name__).exception("load failed, again in 1 s: %s", reason)
            await asyncio.sleep(1)
            has_failed = True
        if self._loading is asyncio.current_task():
            self._loading = None
            self._reload(reason) if has_failed else self._release()

    def _release(self) -> None:
        marks = sum(isinstance(entry, str) for entry in self._waiting)
        while marks and self._loading is None:
            entry = self._waiting.popleft()
            if isinstance(entry, str):
                self.position, marks = entry, marks - 1
            else:
                entry[0](entry[1])
