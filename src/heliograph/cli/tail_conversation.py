"""The client's half of one Realtime connection, as `heliograph tail` needs it: no sockets here.

One channel with one ``postgres_changes`` entry, serializer 2.0.0. Frames go in, events come out;
what ends the conversation is raised: `UnavailableError` where connecting again may help,
`SubscriptionRefusedError` where it can not. Sources: docs/reference/protocol.md; the Realtime
protocol's sections 2.1 (frames), 3 (messages), 4 (join), 10 (changes).
"""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from heliograph import limits
from heliograph.cli.tail_rendering import escape_unprintable
from heliograph.errors import RemoteProtocolError, SubscriptionRefusedError, UnavailableError

_TOPIC: Final = "realtime:heliograph-tail"
_JOIN_REF: Final = "1"

#: What a refused join begins with where the same join may succeed later (protocol section 4.4).
_RETRYABLE_REFUSALS: Final = (
    "ClientJoinRateLimitReached",
    "ConnectionRateLimitReached",
    "DatabaseConnectionRateLimitReached",
    "DatabaseLackOfConnections",
    "IncreaseConnectionPool",
    "InitializingProjectConnection",
    "Realtime was unable to connect",
    "RealtimeRestarting",
    "TimeoutOnRpcCall",
    "UnableToConnectToProject",
    "UnableToVerifyToken",
)
#: Texts of a `system` error after which the server closes the channel, and a new one may live.
_RETRYABLE_ENDS: Final = ("Token has expired", "Too many", *_RETRYABLE_REFUSALS)
#: What our server adds to the text of a subscription that it repeats by itself.
_SERVER_REPEATS: Final = "tries again"


@dataclass(frozen=True, slots=True)
class TailRequest:
    """What is asked for.

    Attributes:
        schema: Schema name, or ``*``.
        table: Table name, or ``*``.
        event: ``INSERT``, ``UPDATE``, ``DELETE`` or ``*``.
        filter: In the protocol's grammar, for example ``status=eq.pending``; None for all rows.
        columns: Columns to show; empty for all.
    """

    schema: str
    table: str
    event: str = "*"
    filter: str | None = None
    columns: tuple[str, ...] = ()

    def binding(self) -> dict[str, object]:
        """Return the entry of the join's ``postgres_changes``."""
        entry: dict[str, object] = {
            "event": self.event,
            "schema": self.schema,
            "table": self.table,
        }
        if self.filter is not None:
            entry["filter"] = self.filter
        if self.columns:
            entry["select"] = list(self.columns)
        return entry


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Every change that commits from now on will come."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One change.

    Attributes:
        content: The ``data`` object as JSON text (protocol section 10.1), as it came.
    """

    content: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """The server says something about the subscription, which goes on.

    Attributes:
        text: The server's words, safe to print.
    """

    text: str


TailEvent = Subscribed | Changed | Told


class _Reply(msgspec.Struct):
    status: str
    response: dict[str, object] = msgspec.field(default_factory=dict[str, object])


class _System(msgspec.Struct):
    status: str
    message: str
    extension: str = "system"


class _Change(msgspec.Struct):
    data: msgspec.Raw


_frames: Final = msgspec.json.Decoder(
    tuple[str | None, str | None, str, str, msgspec.Raw], strict=True
)
_replies: Final = msgspec.json.Decoder(_Reply)
_systems: Final = msgspec.json.Decoder(_System)
_changes: Final = msgspec.json.Decoder(_Change)


@dataclass(slots=True)
class TailConversation:
    """One connection's worth of talk.

    Attributes:
        request: What is asked for.
        is_live: Whether the server has said that changes come.
    """

    request: TailRequest
    is_live: bool = False
    _deadline_s: float = 0.0
    _is_joined: bool = False
    _heartbeat_number: int = 0
    _is_heartbeat_unanswered: bool = False
    _last_words: str | None = field(default=None)

    def join(self, *, token: str | None, now_s: float) -> str:
        """Return the first frame; its answer is due in `limits.TAIL_ANSWER_TIMEOUT_S`.

        Args:
            token: The user's token; None to be who the connection's key stands for.
            now_s: Monotonic seconds.
        """
        self._deadline_s = now_s + limits.TAIL_ANSWER_TIMEOUT_S
        payload: dict[str, object] = {
            "config": {
                "broadcast": {"ack": False, "self": False},
                "presence": {"enabled": False, "key": ""},
                "private": False,
                "postgres_changes": [self.request.binding()],
            }
        }
        if token is not None:
            payload["access_token"] = token
        return _frame(_JOIN_REF, _JOIN_REF, _TOPIC, "phx_join", payload)

    def refresh(self, token: str) -> str:
        """Return the frame that hands a newer token over; a good one gets no answer."""
        return _frame(_JOIN_REF, None, _TOPIC, "access_token", {"access_token": token})

    def next_deadline_s(self) -> float:
        """Return when to call `tick`, in monotonic seconds."""
        return self._deadline_s

    def tick(self, now_s: float) -> str:
        """Return the heartbeat that is due.

        Raises:
            UnavailableError: If the answer to the join or to the last heartbeat did not come.
        """
        if not self._is_joined:
            message = "the server does not answer the join"
            raise UnavailableError(message)
        if self._is_heartbeat_unanswered:
            message = "the server does not answer heartbeats"
            raise UnavailableError(message)
        self._deadline_s = now_s + limits.TAIL_HEARTBEAT_INTERVAL_S
        self._heartbeat_number += 1
        self._is_heartbeat_unanswered = True
        return _frame(None, f"h{self._heartbeat_number}", "phoenix", "heartbeat", {})

    def receive(self, frame: str | bytes, now_s: float) -> TailEvent | None:
        """Take one message of the server.

        Returns:
            What it means for the reader; None if nothing.

        Raises:
            SubscriptionRefusedError: If the server will never serve this; with its text.
            UnavailableError: If the server ends the channel for now.
            RemoteProtocolError: If the frame is none of the protocol's.
        """
        if isinstance(frame, bytes):  # Binary frames are broadcasts; nobody here asked for any.
            return None
        try:
            _, ref, topic, event, payload = _frames.decode(frame)
            if topic == "phoenix":
                self._is_heartbeat_unanswered = False
                return None
            return self._receive_event(event, ref, payload, now_s) if topic == _TOPIC else None
        except msgspec.MsgspecError as error:
            message = "the server sent a frame that is none of serializer 2.0.0"
            raise RemoteProtocolError(message) from error

    def _receive_event(
        self, event: str, ref: str | None, payload: msgspec.Raw, now_s: float
    ) -> TailEvent | None:
        match event:
            case "postgres_changes":
                return Changed(bytes(_changes.decode(payload).data))
            case "system":
                return self._receive_system(_systems.decode(payload))
            case "phx_reply" if ref == _JOIN_REF:
                self._receive_join_reply(_replies.decode(payload), now_s)
            case "phx_close" | "phx_error":
                raise UnavailableError(self._last_words or "the server closed the channel")
            case _:
                pass
        return None

    def _receive_join_reply(self, reply: _Reply, now_s: float) -> None:
        if reply.status == "ok":
            self._is_joined = True
            self._deadline_s = now_s + limits.TAIL_HEARTBEAT_INTERVAL_S
            return
        reason = escape_unprintable(str(reply.response.get("reason", "no reason given")))
        if reason.startswith(_RETRYABLE_REFUSALS):
            raise UnavailableError(reason)
        raise SubscriptionRefusedError(reason)

    def _receive_system(self, system: _System) -> TailEvent | None:
        is_about_changes = system.extension == "postgres_changes"
        if system.status == "ok":
            if not is_about_changes or self.is_live:
                return None
            self.is_live = True
            return Subscribed()
        text = escape_unprintable(system.message)
        if not is_about_changes:
            # The server closes the channel next.
            if not text.startswith(_RETRYABLE_ENDS):
                raise SubscriptionRefusedError(text)
            self._last_words = text
            return None
        if not self.is_live and _SERVER_REPEATS not in text:
            raise SubscriptionRefusedError(text)
        return Told(text)


def _frame(
    join_ref: str | None, ref: str | None, topic: str, event: str, payload: dict[str, object]
) -> str:
    return msgspec.json.encode([join_ref, ref, topic, event, payload]).decode()
