"""What runs for one channel: verifying its token, subscribing, and the way of its changes.

The shell around `core.channels.server_channel`. At most one verification and one subscribing run at
a time; a newer one replaces the older. Implements `ports.change_subscriptions.ChangeOutlet`.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from heliograph.core.channels.effects import Subscribe, VerifyToken
from heliograph.core.channels.results import (
    Failed,
    Hopeless,
    Result,
    Subscribed,
    SubscriptionRefused,
    SubscriptionUnavailable,
    TokenRefused,
    TokenUnverifiable,
    TokenVerified,
)
from heliograph.core.wire.change_frame import ChangeFrames
from heliograph.errors import SubscriptionRefusedError, TokenError, UnavailableError
from heliograph.limits import (
    HANDSHAKE_DEADLINE_S,
    SUBSCRIBE_DEADLINE_S,
    SYSTEM_MESSAGES_WAITING_MAX,
)
from heliograph.ports.authenticator import Authenticator
from heliograph.ports.change_subscriptions import ChangeBinding, ChangeSubscriptions
from heliograph.server.outbound import Outbound
from heliograph.server.supervision import Supervisor

if TYPE_CHECKING:
    from heliograph.ports.change_subscriptions import ChangeSubscription
    from heliograph.ports.identity import Identity


class ChannelOwner(Protocol):
    """The connection that a channel belongs to."""

    def report(self, channel_id: int, result: Result) -> None:
        """Take what was found out."""
        ...

    def send_system(
        self,
        channel_id: int,
        *,
        status: str,
        message: str,
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Queue a ``system`` message of extension ``postgres_changes``."""
        ...

    def crashed(self) -> None:
        """Close the connection: a bug ended work that its channel waits for."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelParts:
    """What a channel's shell needs of its connection.

    Attributes:
        subscriptions: Makes subscriptions.
        authenticator: Verifies tokens.
        supervisor: Owns the tasks.
        outbound: The connection's buffer.
        owner: The connection.
        api_key: What the connection came with.
    """

    subscriptions: ChangeSubscriptions
    authenticator: Authenticator
    supervisor: Supervisor
    outbound: Outbound
    owner: ChannelOwner
    api_key: str


class _System(NamedTuple):
    """A ``system`` message that waits for the join to be answered."""

    status: str
    message: str
    details: Mapping[str, str] | None


class ChannelDelivery:
    """One channel's tasks and subscription."""

    __slots__ = (
        "_channel_id",
        "_current",
        "_frames",
        "_had_subscription",
        "_is_open",
        "_made",
        "_parts",
        "_send_change",
        "_subscribing",
        "_verifying",
        "_waiting",
        "has_room",
        "offer_change",
    )

    def __init__(self, channel_id: int, *, frames: ChangeFrames, parts: ChannelParts) -> None:
        """Begin with nothing running.

        Args:
            channel_id: The machine's name for the channel.
            frames: Makes its change frames.
            parts: What it needs.
        """
        self._channel_id = channel_id
        self._frames = frames
        self._parts = parts
        # Asked and called for every delivered frame.
        self.has_room = parts.outbound.has_room
        self.offer_change = partial(parts.outbound.offer_change, frames)
        self._send_change = parts.outbound.send_change
        self._verifying: asyncio.Task[None] | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._made: ChangeSubscription | None = None
        self._current: ChangeSubscription | None = None
        self._is_open = False
        self._had_subscription = False
        self._waiting: list[_System] = []

    # --- Effects ---------------------------------------------------------------------------

    def verify(self, request: VerifyToken) -> None:
        """Verify a token and report."""
        _cancel(self._verifying)
        self._verifying = self._spawn(self._verify(request), "verify token")

    def subscribe(self, request: Subscribe) -> None:
        """Make a subscription and report; one that delivers goes on."""
        _cancel(self._subscribing)
        self._subscribing = self._spawn(self._subscribe(request), "subscribe")

    def start(self) -> None:
        """Hand over from the subscription that delivered so far to the one just made."""
        made, self._made = self._made, None
        if self._current is not None:
            self._current.close()
        self._current = made
        self._is_open = True
        waiting, self._waiting = self._waiting, []
        self._had_subscription = self._had_subscription or made is not None
        for system in waiting:
            self.send_system(status=system.status, message=system.message, details=system.details)
        if made is not None:
            made.start()

    def stop(self) -> None:
        """End subscribing and delivery."""
        self._is_open = False
        _cancel(self._subscribing)
        self._subscribing = None
        for subscription in (self._made, self._current):
            if subscription is not None:
                subscription.close()
        self._made = self._current = None

    def end(self) -> None:
        """End everything."""
        self.stop()
        _cancel(self._verifying)
        self._verifying = None
        self._waiting.clear()

    # --- ChangeOutlet ----------------------------------------------------------------------

    def send_change(self, ids: Sequence[int], data: bytes) -> None:
        """Queue one change; see the port."""
        if self._is_open:
            self._send_change(self._frames, ids, data)

    def send_system(
        self, *, status: str, message: str, details: Mapping[str, str] | None = None
    ) -> None:
        """Queue a ``system`` message; before the join is answered it waits.

        Of those that wait an error takes the place of the one before it, and of the others there
        is a bounded number.
        """
        if self._is_open:
            self._parts.owner.send_system(
                self._channel_id, status=status, message=message, details=details
            )
            return
        if status == "error":
            self._waiting = [waiting for waiting in self._waiting if waiting.status != status]
        elif len(self._waiting) >= SYSTEM_MESSAGES_WAITING_MAX:
            return
        self._waiting.append(_System(status, message, details))

    async def wait_room(self) -> None:
        """Wait until the connection has drained, or is gone."""
        await self._parts.outbound.wait_room()

    def close_hopeless(self, message: str) -> None:
        """Close the channel for good; see the port."""
        self._parts.owner.report(self._channel_id, Hopeless(message))

    def close_failed(self, message: str) -> None:
        """Close the channel so that its client joins again; see the port."""
        self._parts.owner.report(self._channel_id, Failed(message))

    # --- Tasks -----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        return self._parts.supervisor.spawn(work, name=name, on_failure=self._parts.owner.crashed)

    async def _verify(self, request: VerifyToken) -> None:
        """Verify and report."""
        self._parts.owner.report(self._channel_id, await self._verification(request))

    async def _verification(self, request: VerifyToken) -> Result:
        """Return what comes of a verification."""
        token = self._parts.api_key if request.token is None else request.token
        try:
            async with asyncio.timeout(HANDSHAKE_DEADLINE_S):
                identity = await self._parts.authenticator.identify(token)
        except TokenError as error:
            return TokenRefused(request.attempt, error)
        except UnavailableError as error:
            return TokenUnverifiable(request.attempt, str(error))
        except TimeoutError:
            return TokenUnverifiable(request.attempt, "the token's keys could not be fetched")
        return TokenVerified(request.attempt, identity)

    async def _subscribe(self, request: Subscribe) -> None:
        """Make the subscription, report, and close it if nobody waits for it any more."""
        self._parts.owner.report(self._channel_id, await self._subscription(request))
        if self._made is not None:
            self._made.close()
            self._made = None

    async def _subscription(self, request: Subscribe) -> Result:
        """Return what comes of a subscribing; the subscription itself is kept as made."""
        try:
            async with asyncio.timeout(SUBSCRIBE_DEADLINE_S):
                self._made = await self._parts.subscriptions.subscribe(
                    bindings=[
                        ChangeBinding(binding.id, binding.parameters)
                        for binding in request.bindings
                    ],
                    # What the authenticator returned; the machine only passes it on.
                    identity=cast("Identity", request.identity),
                    outlet=self,
                    replaces=self._current,
                    may_resume=not self._had_subscription,
                )
        except SubscriptionRefusedError as error:
            return SubscriptionRefused(request.attempt, str(error), error.reason)
        except UnavailableError as error:
            return SubscriptionUnavailable(request.attempt, str(error))
        except TimeoutError:
            return SubscriptionUnavailable(request.attempt, "the database did not answer in time")
        return Subscribed(request.attempt)


def _cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task unless it is the one that runs: it is at its end anyway."""
    if task is not None and task is not asyncio.current_task():
        task.cancel()
