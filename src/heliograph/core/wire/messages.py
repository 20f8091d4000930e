"""What the frames of the Supabase Realtime protocol say, whatever serializer wrote them.

Field names are those of Phoenix: a *topic* names the channel, *join_ref* the join that a message
belongs to, *ref* the request that a reply answers.
"""

from dataclasses import dataclass
from enum import StrEnum


class SerializerVersion(StrEnum):
    """The ``vsn`` parameter of a handshake (protocol §1.2)."""

    V1 = "1.0.0"
    V2 = "2.0.0"


@dataclass(frozen=True, slots=True)
class Message:
    """One message in either direction.

    Attributes:
        join_ref: The join it belongs to; None when absent. Never written by serializer 1.0.0.
        ref: The request; on a reply the request's own; on phx_close and phx_error the join_ref.
        topic: ``realtime:…`` or ``phoenix``.
        event: ``phx_join``, ``heartbeat``, ``postgres_changes``, …
        payload: Decoded JSON value.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: object


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message whose envelope can be read and whose content breaks a bound; it is answered.

    Attributes:
        join_ref: As in `Message`.
        ref: As in `Message`.
        topic: As in `Message`.
        reason: What is wrong with it, for the sender.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class UserBroadcastPush:
    """Binary kind 3: a client's broadcast (protocol §2.2).

    Attributes:
        join_ref: None when its length is 0.
        ref: None when its length is 0.
        topic: The channel.
        user_event: The broadcast's own event name.
        metadata: JSON text or empty; carried, not read.
        payload: JSON text if ``is_json``, else any bytes.
        is_json: Whether the payload is JSON.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    user_event: str
    metadata: bytes
    payload: bytes
    is_json: bool
