"""One WebSocket connection on the server: SANS-IO.

Takes whole messages and results, returns effects in the order in which they must be carried out.
Knows nothing of sockets, tasks or clocks. What a client sends never raises: it is answered, dropped
and counted, or ends this connection.

Rules of its own:

- Malformed frames are dropped and counted; the connection stays (protocol §2).
- A message with a stale or missing join_ref is handled by the channel of its topic (§0.7).
- Limits count what the client sends, never what it is sent: joins, tokens and pushes per second,
  messages of any kind per second, channels, silence.
- The first message must come within `JOIN_DEADLINE_S`; later the socket may be without a channel
  for `NO_CHANNEL_S`. A heartbeat is enough for the first: the Python client beats at once and
  joins whenever its user says so.
"""

from dataclasses import dataclass

from heliograph import limits
from heliograph.core.channels import replies
from heliograph.core.channels.effects import (
    CloseSocket,
    Effect,
    EndChannel,
    Observation,
    Observed,
    SendText,
)
from heliograph.core.channels.instant import Instant
from heliograph.core.channels.join_config import parse_join
from heliograph.core.channels.rate_limit import TokenBucket
from heliograph.core.channels.results import Result
from heliograph.core.channels.server_channel import ChannelState, Opening, ServerChannel
from heliograph.core.wire import close_codes
from heliograph.core.wire.binary_codec import decode_binary
from heliograph.core.wire.close_codes import CloseCode
from heliograph.core.wire.json_codec import decode_text, encode_text
from heliograph.core.wire.messages import Message, RefusedMessage, SerializerVersion
from heliograph.errors import RemoteProtocolError

_CONTROL_TOPIC = "phoenix"
_UNMATCHED_TEXT = "unmatched topic"
_KNOWN_EVENTS = frozenset(
    {"heartbeat", "phx_join", "phx_leave", "access_token", "broadcast", "presence"}
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one socket may do; every default and its reason is in `heliograph.limits`."""

    channels_max: int = limits.CHANNELS_PER_SOCKET_MAX
    joins_per_s: float = limits.JOINS_PER_SECOND_MAX
    refreshes_per_s: float = limits.TOKENS_PER_SECOND_MAX
    pushes_per_s: float = limits.MESSAGES_PER_SECOND_MAX
    messages_per_s: float = limits.MESSAGES_ANY_PER_SECOND_MAX
    first_message_s: float = limits.JOIN_DEADLINE_S
    silence_s: float = limits.SOCKET_SILENCE_S
    no_channel_s: float = limits.NO_CHANNEL_S


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """What a connection holds; for metrics and debugging.

    Attributes:
        channels: Joined and joining channels.
        is_closing: Whether `CloseSocket` was asked for.
    """

    channels: int
    is_closing: bool


class ServerConnection:
    """The channels of one socket, and what its client may do."""

    __slots__ = (
        "_any_bucket",
        "_by_id",
        "_by_topic",
        "_channel_id",
        "_deadline_s",
        "_is_closing",
        "_join_bucket",
        "_limits",
        "_no_channel_since_s",
        "_opening",
        "_push_bucket",
        "_received_s",
        "_refresh_bucket",
    )

    def __init__(
        self, opening: Opening, *, now: Instant, limits: ConnectionLimits | None = None
    ) -> None:
        """Begin a connection whose handshake was accepted.

        Args:
            opening: What it came with.
            now: The moment of the handshake.
            limits: What it may do.
        """
        self._limits = limits or ConnectionLimits()
        self._opening = opening
        self._by_topic: dict[str, ServerChannel] = {}
        self._by_id: dict[int, ServerChannel] = {}
        self._channel_id = 0
        self._is_closing = False
        self._received_s: float | None = None
        self._no_channel_since_s = now.monotonic_s
        self._join_bucket = self._bucket(self._limits.joins_per_s, now)
        self._push_bucket = self._bucket(self._limits.pushes_per_s, now)
        self._any_bucket = self._bucket(self._limits.messages_per_s, now)
        # All that may come at once: clients refresh every channel at once, some after each join.
        self._refresh_bucket = TokenBucket(
            rate_per_s=self._limits.refreshes_per_s,
            burst=self._limits.messages_per_s,
            now_s=now.monotonic_s,
        )
        self._deadline_s = now.monotonic_s + min(
            self._limits.first_message_s, self._limits.silence_s, self._limits.no_channel_s
        )

    @property
    def version(self) -> SerializerVersion:
        """The serializer that the client asked for."""
        return self._opening.version

    def statistics(self) -> ConnectionStatistics:
        """Return what the connection holds."""
        return ConnectionStatistics(len(self._by_topic), self._is_closing)

    def channel(self, channel_id: int) -> ServerChannel | None:
        """Return a channel that has not ended."""
        return self._by_id.get(channel_id)

    # --- What the client sends -------------------------------------------------------------

    def receive_text(self, text: str, now: Instant) -> list[Effect]:
        """Take one text message."""
        if (flood := self._count(now)) is not None:
            return flood
        try:
            message = decode_text(text, self._opening.version)
        except RemoteProtocolError:
            return [Observed(Observation.MALFORMED, "text")]
        if isinstance(message, RefusedMessage):
            return self._refuse(message)
        label = message.event if message.event in _KNOWN_EVENTS else "other"
        return [Observed(Observation.MESSAGE, label), *self._receive(message, now)]

    def receive_binary(self, frame: bytes, now: Instant) -> list[Effect]:
        """Take one binary message."""
        if (flood := self._count(now)) is not None:
            return flood
        if self._opening.version is SerializerVersion.V1:
            return [Observed(Observation.MALFORMED, "binary")]
        try:
            push = decode_binary(frame)
        except RemoteProtocolError:
            return [Observed(Observation.MALFORMED, "binary")]
        message = Message(push.join_ref, push.ref, push.topic, "broadcast", None)
        return [Observed(Observation.MESSAGE, "broadcast"), *self._receive(message, now)]

    def receive_control(self, now: Instant) -> list[Effect]:
        """Take one ping or pong: it shows life, and counts against floods."""
        return self._count(now) or []

    # --- What the shell found out ----------------------------------------------------------

    def receive_result(self, channel_id: int, result: Result, now: Instant) -> list[Effect]:
        """Take what was found out about a channel; one that has ended is not listened to."""
        channel = self._by_id.get(channel_id)
        if channel is None:
            return []
        effects = channel.receive_result(result, now)
        self._follow(channel, now)
        return effects

    def drain(self) -> list[Effect]:
        """Tell every channel that the server goes away, and close the socket (1012)."""
        effects = [each for channel in self._forget_all() for each in channel.disconnect()]
        return [*effects, *self._close(close_codes.SERVICE_RESTART, "the server restarts")]

    def connection_lost(self) -> list[Effect]:
        """Learn that the socket is gone: end every channel without a word."""
        self._is_closing = True
        return [EndChannel(channel.id) for channel in self._forget_all()]

    # --- Time ------------------------------------------------------------------------------

    def next_deadline_s(self) -> float:
        """Return when to call `tick`: never too late, at times early."""
        return self._deadline_s

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due: close a silent or idle socket, let channels look at their tokens."""
        if self._is_closing:
            self._deadline_s = now.monotonic_s + self._limits.silence_s
            return []
        closing = self._overdue(now)
        if closing is not None:
            return closing
        effects: list[Effect] = []
        self._deadline_s = self._own_deadline_s()
        for channel in list(self._by_topic.values()):
            effects += channel.tick(now)
            self._follow(channel, now)
        return effects

    # --- Inside ----------------------------------------------------------------------------

    def _receive(self, message: Message, now: Instant) -> list[Effect]:
        """Find who handles a message."""
        if message.topic == _CONTROL_TOPIC and message.event == "heartbeat":
            answer = replies.reply(message, status="ok", response={}, join_ref=None)
            return [self._send(answer)]
        if message.event == "phx_join":
            return self._join(message, now)
        channel = self._by_topic.get(message.topic)
        if channel is None:
            return self._receive_unmatched(message)
        effects = self._receive_on(channel, message, now)
        self._follow(channel, now)
        return effects

    def _receive_on(self, channel: ServerChannel, message: Message, now: Instant) -> list[Effect]:
        """Handle a message on a topic that is joined or being joined."""
        match message.event:
            case "phx_leave":
                return channel.leave(message)
            case "access_token" if not self._refresh_bucket.take(now.monotonic_s):
                return self._end_flood_of_tokens(channel, message)
            case "access_token":
                return channel.receive_access_token(message.payload)
            case _ if not self._push_bucket.take(now.monotonic_s):
                limited = Observed(Observation.LIMITED, "pushes")
                return [limited, *channel.close_with_error("Too many messages per second")]
            case "broadcast" | "presence":
                return channel.receive_push(message)
            case _:
                return [Observed(Observation.IGNORED, "event")]

    def _end_flood_of_tokens(self, channel: ServerChannel, message: Message) -> list[Effect]:
        """End the connection as for too many joins: a token costs as much."""
        text = "Too many tokens per second"
        effects: list[Effect] = [Observed(Observation.LIMITED, "tokens")]
        if message.ref is not None:
            reason = f"ClientJoinRateLimitReached: {text}"
            answer = replies.reply_error(message, reason, join_ref=channel.join_ref)
            effects.append(self._send(answer))
        return [*effects, *self._close(close_codes.GOING_AWAY, text)]

    def _receive_unmatched(self, message: Message) -> list[Effect]:
        """Handle a message on a topic that is not joined: a leave is fine, the rest is not."""
        if message.event == "phx_leave":
            answer = replies.reply(message, status="ok", response={}, join_ref=None)
            return [self._send(answer)]
        ignored = Observed(Observation.IGNORED, "unmatched_topic")
        if message.ref is None:
            return [ignored]
        return [ignored, self._send(replies.reply_error(message, _UNMATCHED_TEXT))]

    def _join(self, join: Message, now: Instant) -> list[Effect]:
        """Begin a channel; the checks come in the order of protocol §4.2."""
        effects: list[Effect] = []
        if (before := self._by_topic.get(join.topic)) is not None:
            effects += before.replace()
            self._follow(before, now)
        if not self._join_bucket.take(now.monotonic_s):
            text = "Too many joins per second"
            return [
                *effects,
                *self._refuse_join(join, f"ClientJoinRateLimitReached: {text}"),
                *self._close(close_codes.GOING_AWAY, text),
            ]
        sub_topic = join.topic.removeprefix(replies.TOPIC_PREFIX)
        if (reason := self._join_fault(join.topic, sub_topic)) is not None:
            return [*effects, *self._refuse_join(join, reason)]
        try:
            config = parse_join(sub_topic, join.payload)
        except RemoteProtocolError as error:
            return [*effects, *self._refuse_join(join, str(error))]
        self._channel_id += 1
        channel = ServerChannel(self._channel_id, join=join, config=config, opening=self._opening)
        self._by_topic[join.topic] = channel
        self._by_id[channel.id] = channel
        effects += channel.start(now)
        self._follow(channel, now)
        return effects

    def _join_fault(self, topic: str, sub_topic: str) -> str | None:
        """Name what is wrong with a join before its payload is looked at."""
        if sub_topic == topic:
            return _UNMATCHED_TEXT
        if not sub_topic:
            return "TopicNameRequired: You must provide a topic name"
        if len(topic) > limits.TOPIC_CHARACTERS_MAX:
            return f"TopicTooLong: a topic has at most {limits.TOPIC_CHARACTERS_MAX} characters"
        if len(self._by_topic) >= self._limits.channels_max:
            return "ChannelRateLimitReached: Too many channels"
        return None

    def _refuse_join(self, join: Message, reason: str) -> list[Effect]:
        """Answer a join that never became a channel."""
        return [
            self._send(replies.reply_error(join, reason, join_ref=join.ref)),
            Observed(Observation.JOIN, replies.reason_code(reason)),
        ]

    def _refuse(self, message: RefusedMessage) -> list[Effect]:
        """Answer a message whose content breaks a bound; without a ref it is only counted."""
        malformed = Observed(Observation.MALFORMED, "content")
        if message.ref is None:
            return [malformed]
        request = Message(message.join_ref, message.ref, message.topic, "", None)
        return [malformed, self._send(replies.reply_error(request, message.reason))]

    def _count(self, now: Instant) -> list[Effect] | None:
        """Note that something came; return effects instead of None if it is not to be handled."""
        if self._is_closing:
            return []
        self._received_s = now.monotonic_s
        if self._any_bucket.take(now.monotonic_s):
            return None
        return [
            Observed(Observation.LIMITED, "messages"),
            *self._close(close_codes.POLICY_VIOLATION, "too many messages per second"),
        ]

    def _follow(self, channel: ServerChannel, now: Instant) -> None:
        """Forget a channel that has closed, and plan for what it has to do otherwise."""
        if channel.state is ChannelState.CLOSED and self._by_id.pop(channel.id, None) is not None:
            del self._by_topic[channel.topic]
            if not self._by_topic:
                self._no_channel_since_s = now.monotonic_s
                self._plan(now.monotonic_s + self._limits.no_channel_s)
        self._plan(channel.next_deadline_s())

    def _overdue(self, now: Instant) -> list[Effect] | None:
        """Close a socket that says nothing or wants nothing."""
        if now.monotonic_s < self._own_deadline_s():
            return None
        if self._received_s is None:
            return self._close(close_codes.POLICY_VIOLATION, "no message in time")
        if now.monotonic_s >= self._received_s + self._limits.silence_s:
            return self._close(close_codes.SILENT, "nothing received, not even a heartbeat")
        return self._close(close_codes.POLICY_VIOLATION, "no channel was joined")

    def _own_deadline_s(self) -> float:
        """Return when `_overdue` has something to say."""
        if self._received_s is None:
            return self._no_channel_since_s + self._limits.first_message_s
        silent_s = self._received_s + self._limits.silence_s
        if self._by_topic:
            return silent_s
        return min(silent_s, self._no_channel_since_s + self._limits.no_channel_s)

    def _plan(self, deadline_s: float | None) -> None:
        """Make sure that `tick` comes no later than this."""
        if deadline_s is not None and deadline_s < self._deadline_s:
            self._deadline_s = deadline_s

    def _close(self, code: CloseCode, reason: str) -> list[Effect]:
        """Ask for the socket's end, once."""
        if self._is_closing:
            return []
        self._is_closing = True
        return [CloseSocket(code, reason)]

    def _forget_all(self) -> list[ServerChannel]:
        """Return all channels and keep none."""
        channels = list(self._by_topic.values())
        self._by_topic.clear()
        self._by_id.clear()
        return channels

    def _send(self, message: Message) -> SendText:
        """Encode for the connection's serializer."""
        return SendText(encode_text(message, self._opening.version))

    @staticmethod
    def _bucket(rate_per_s: float, now: Instant) -> TokenBucket:
        """Make a bucket that holds one second's worth."""
        return TokenBucket(rate_per_s=rate_per_s, burst=rate_per_s, now_s=now.monotonic_s)
