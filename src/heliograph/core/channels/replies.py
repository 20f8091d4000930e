"""The messages that a server sends on a channel (protocol §3.2), as plain values."""

from collections.abc import Mapping
from typing import Final

from heliograph.core.wire.messages import Message

TOPIC_PREFIX: Final = "realtime:"
SUBSCRIBED_TEXT: Final = "Subscribed to PostgreSQL"
DISCONNECT_TEXT: Final = "Server requested disconnect"


def reply(
    request: Message, *, status: str, response: Mapping[str, object], join_ref: str | None
) -> Message:
    """Answer a request; its own join_ref is echoed, the channel's stands in for an absent one."""
    return Message(
        join_ref=request.join_ref if request.join_ref is not None else join_ref,
        ref=request.ref,
        topic=request.topic,
        event="phx_reply",
        payload={"status": status, "response": response},
    )


def reply_error(request: Message, reason: str, *, join_ref: str | None = None) -> Message:
    """Answer a request with an error that users see."""
    return reply(request, status="error", response={"reason": reason}, join_ref=join_ref)


def phx_close(topic: str, join_ref: str | None) -> Message:
    """Say that a channel is closed; the ref must be the join_ref or JavaScript ignores it."""
    return Message(join_ref, join_ref, topic, "phx_close", {})


def phx_error(topic: str, join_ref: str | None, reason: str) -> Message:
    """Say that a channel broke off: the official clients join again by themselves, with backoff."""
    return Message(join_ref, join_ref, topic, "phx_error", {"reason": reason})


def system(
    topic: str,
    join_ref: str | None,
    *,
    extension: str,
    status: str,
    text: str,
    details: Mapping[str, str] | None = None,
) -> Message:
    """Tell a channel something; all four keys, or Python drops the message."""
    payload = {
        "channel": topic.removeprefix(TOPIC_PREFIX),
        "extension": extension,
        "message": text,
        "status": status,
        **(details or {}),
    }
    return Message(join_ref, None, topic, "system", payload)


def reason_code(reason: str) -> str:
    """Return the code before the colon of a reason, ``other`` where there is none."""
    code, colon, _ = reason.partition(":")
    return code if colon and code.isalnum() else "other"
