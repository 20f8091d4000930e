"""One open WebSocket: runs the effects of its machine, and keeps its clock.

The seam between the two adapters (picows, plain ASGI) and everything else: an adapter hands in
whole messages and is given frames, it knows nothing of channels.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import structlog

from heliograph.core.channels import replies
from heliograph.core.channels.effects import (
    CloseSocket,
    Effect,
    EndChannel,
    Observation,
    Observed,
    SendText,
    StartDelivery,
    StopDelivery,
    Subscribe,
    VerifyToken,
)
from heliograph.core.channels.instant import Instant
from heliograph.core.channels.results import Result
from heliograph.core.channels.server_channel import Opening
from heliograph.core.channels.server_connection import ConnectionLimits, ServerConnection
from heliograph.core.wire import close_codes
from heliograph.core.wire.change_frame import SharedChangeFrames
from heliograph.core.wire.close_codes import CLOSE_CODES, CloseCode
from heliograph.core.wire.json_codec import encode_text
from heliograph.core.wire.websocket_frame import TEXT, message_bytes
from heliograph.errors import FrameError, LocalProtocolError
from heliograph.ports.authenticator import Authenticator
from heliograph.ports.change_subscriptions import ChangeSubscriptions
from heliograph.ports.clock import Clock
from heliograph.server.channel_delivery import ChannelDelivery, ChannelParts
from heliograph.server.metrics import Metrics
from heliograph.server.outbound import Outbound, OutboundParts, SocketTransport
from heliograph.server.supervision import Supervisor

_log = structlog.get_logger("heliograph.connection")
_CODES = {code.number: code for code in CLOSE_CODES}

#: What an end that we did not ask for is counted as. Clients may close with any code, also with one
#: that means a fault of ours: that is a client that closed.
_NOT_BY_US = {
    code.number: code
    for code in (
        *(close_codes.NO_STATUS, close_codes.ABNORMAL, close_codes.PROTOCOL_ERROR),
        *(close_codes.INVALID_TEXT, close_codes.MESSAGE_TOO_BIG),
    )
}


@dataclass(frozen=True, slots=True)
class ConnectionParts:
    """What all connections of a server share.

    Attributes:
        subscriptions: Makes change subscriptions.
        authenticator: Verifies tokens.
        clock: Tells the time.
        metrics: Counts.
        limits: What one client may send.
        outbound: What the outbound buffers share.
        frames: What channels of one topic share.
    """

    subscriptions: ChangeSubscriptions
    authenticator: Authenticator
    clock: Clock
    metrics: Metrics
    limits: ConnectionLimits
    outbound: OutboundParts
    frames: SharedChangeFrames


class Connection:
    """The shell of one `ServerConnection`; everything runs on the event loop."""

    __slots__ = (
        "_api_key",
        "_closed_with",
        "_deliveries",
        "_has_logged_malformed",
        "_machine",
        "_opened_s",
        "_outbound",
        "_parts",
        "_supervisor",
        "_timer",
        "_timer_s",
        "_transport",
        "is_lost",
    )

    def __init__(
        self,
        opening: Opening,
        *,
        transport: SocketTransport,
        supervisor: Supervisor,
        parts: ConnectionParts,
    ) -> None:
        """Begin an accepted connection.

        Args:
            opening: What the handshake came with.
            transport: Where frames go.
            supervisor: Owns the tasks of this connection.
            parts: What all connections share.
        """
        self._parts = parts
        self._supervisor = supervisor
        self._transport = transport
        self._api_key = opening.api_key
        self._machine = ServerConnection(opening, now=self._now(), limits=parts.limits)
        self._outbound = Outbound(transport, parts=parts.outbound, on_slow=self._close_slow)
        self._deliveries: dict[int, ChannelDelivery] = {}
        self._closed_with: tuple[CloseCode, str] | None = None
        self._has_logged_malformed = False
        self._opened_s = parts.clock.monotonic_s()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.is_lost = False
        self._plan()

    # --- The adapter's side ----------------------------------------------------------------

    def receive_message(self, message: str | bytes) -> None:
        """Take one whole message."""
        self._parts.metrics.traffic.bytes_received += message_bytes(message)
        if isinstance(message, str):
            self._run(self._machine.receive_text(message, self._now()))
        else:
            self._run(self._machine.receive_binary(message, self._now()))

    def receive_control(self) -> None:
        """Take one ping or pong."""
        self._run(self._machine.receive_control(self._now()))

    def receive_fault(self, fault: FrameError) -> None:
        """End the connection over a frame that it can not survive."""
        self._close(_CODES[fault.close_code], str(fault))

    def pause_writing(self) -> None:
        """Learn that the transport holds more than it should."""
        self._outbound.pause()

    def resume_writing(self) -> None:
        """Learn that the transport has room again."""
        self._outbound.resume()

    def lost(self, code: int) -> None:
        """Learn that the socket is gone; idempotent.

        Args:
            code: What the client closed with, or the adapter over a frame that breaks the rules;
                1006 if it just went away.
        """
        if self.is_lost:
            return
        self.is_lost = True
        self._run(self._machine.connection_lost())
        self._outbound.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        not_by_us = _NOT_BY_US.get(code, close_codes.NORMAL)
        closed_with, reason = self._closed_with or (not_by_us, not_by_us.name)
        self._parts.metrics.closes.labels(closed_with.number, closed_with.name).inc()
        _log.info(
            "connection_closed",
            code=closed_with.number,
            reason=reason,
            seconds=round(self._parts.clock.monotonic_s() - self._opened_s, 3),
        )

    # --- The server's side -----------------------------------------------------------------

    def drain(self) -> None:
        """Tell every channel that the server goes away, and close with 1012."""
        self._run(self._machine.drain())

    def cut(self) -> None:
        """Drop the socket without a word."""
        self._transport.abort()

    def channel_count(self) -> int:
        """Return the joined and joining channels."""
        return self._machine.statistics().channels

    def waiting_bytes(self) -> int:
        """Return what waits to be read by the client."""
        return self._outbound.waiting_bytes()

    # --- The channels' side ----------------------------------------------------------------

    def report(self, channel_id: int, result: Result) -> None:
        """Take what was found out about a channel."""
        self._run(self._machine.receive_result(channel_id, result, self._now()))

    def send_system(
        self,
        channel_id: int,
        *,
        status: str,
        message: str,
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Queue a ``system`` message about a channel's changes."""
        channel = self._machine.channel(channel_id)
        if channel is not None:
            system = replies.system(
                channel.topic,
                channel.join_ref,
                extension="postgres_changes",
                status=status,
                text=message,
                details=details,
            )
            self._outbound.send(TEXT, (encode_text(system, self._machine.version),))

    def crashed(self) -> None:
        """Close: a bug ended work that a channel waits for."""
        self._close(close_codes.INTERNAL_ERROR, "internal error")

    # --- Inside ----------------------------------------------------------------------------

    def _now(self) -> Instant:
        clock = self._parts.clock
        return Instant(clock.monotonic_s(), clock.unix_s())

    def _run(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in order."""
        for effect in effects:
            match effect:
                case SendText(frame):
                    self._outbound.send(TEXT, (frame,))
                case Observed(what, label):
                    self._observe(what, label)
                case CloseSocket(code, reason):
                    self._close(code, reason)
                case _:
                    self._run_on_channel(effect)
        self._plan()

    def _run_on_channel(
        self, effect: VerifyToken | Subscribe | StartDelivery | StopDelivery | EndChannel
    ) -> None:
        """Carry out what concerns one channel.

        Sending may find that the client is too slow and end everything between two effects; then
        what was still to be done for a channel is void.
        """
        if isinstance(effect, EndChannel):
            delivery = self._deliveries.pop(effect.channel_id, None)
            if delivery is not None:
                delivery.end()
            return
        if self._closed_with is not None:
            return
        match effect:
            case VerifyToken(channel_id):
                self._delivery(channel_id).verify(effect)
            case Subscribe(channel_id):
                self._delivery(channel_id).subscribe(effect)
            case StartDelivery(channel_id):
                self._deliveries[channel_id].start()
            case StopDelivery(channel_id):
                self._deliveries[channel_id].stop()
            case _ as unreachable:
                assert_never(unreachable)

    def _delivery(self, channel_id: int) -> ChannelDelivery:
        """Return the shell of a channel, made when it is first needed."""
        delivery = self._deliveries.get(channel_id)
        if delivery is None:
            channel = self._machine.channel(channel_id)
            if channel is None:
                message = f"channel {channel_id} asks for something after its end"
                raise LocalProtocolError(message)
            frames = self._parts.frames.get(
                channel.topic, self._machine.version, is_legacy=channel.is_legacy
            )
            parts = ChannelParts(
                subscriptions=self._parts.subscriptions,
                authenticator=self._parts.authenticator,
                supervisor=self._supervisor,
                outbound=self._outbound,
                owner=self,
                api_key=self._api_key,
            )
            delivery = ChannelDelivery(channel_id, frames=frames, parts=parts)
            self._deliveries[channel_id] = delivery
        return delivery

    def _observe(self, what: Observation, label: str) -> None:
        """Count."""
        metrics = self._parts.metrics
        match what:
            case Observation.MESSAGE:
                metrics.client_messages.labels(label).inc()
            case Observation.MALFORMED:
                metrics.malformed_messages.labels(label).inc()
                if not self._has_logged_malformed:
                    self._has_logged_malformed = True
                    _log.info("malformed_message", kind=label)
            case Observation.IGNORED:
                metrics.ignored_messages.labels(label).inc()
            case Observation.JOIN:
                metrics.joins.labels(label).inc()
            case Observation.SUBSCRIPTION_REFUSED:
                metrics.subscriptions_refused.labels(label).inc()
            case Observation.LIMITED:
                metrics.limited.labels(label).inc()
            case _ as unreachable:
                assert_never(unreachable)

    def _close_slow(self, reason: str) -> None:
        self._close(close_codes.SLOW_CONSUMER, reason)

    def _close(self, code: CloseCode, reason: str) -> None:
        """End the connection from our side, once: channels first, then the close frame."""
        if self._closed_with is not None or self.is_lost:
            return
        self._closed_with = (code, reason)
        self._run(self._machine.connection_lost())
        self._outbound.close(code.number, reason)

    def _plan(self) -> None:
        """Have the machine's `tick` called in time; a later deadline is found out then."""
        if self.is_lost:
            return
        deadline_s = self._machine.next_deadline_s()
        if self._timer is not None:
            if deadline_s >= self._timer_s:
                return
            self._timer.cancel()
        self._timer_s = deadline_s
        wait_s = max(0.0, deadline_s - self._parts.clock.monotonic_s())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._run(self._machine.tick(self._now()))
