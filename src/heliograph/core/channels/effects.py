"""What the connection machine asks its shell to do, in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from heliograph.core.channels.bearer import Bearer
from heliograph.core.wire.close_codes import CloseCode


@dataclass(frozen=True, slots=True)
class Binding:
    """One entry of a join's ``postgres_changes`` list.

    Attributes:
        id: What the join reply calls it; never 0, equal entries share one.
        parameters: The entry as the client sent it.
    """

    id: int
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SendText:
    """Queue one text frame, already encoded for the connection's serializer."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class VerifyToken:
    """Verify a token and report under the same ``attempt``; replaces an earlier one.

    Attributes:
        channel_id: Who asks.
        attempt: To be handed back.
        token: The channel's own; None for the key that the connection came with.
    """

    channel_id: int
    attempt: int
    token: str | None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Make a change subscription and report under the same ``attempt``; replaces an earlier one.

    A subscription that already delivers goes on until `StartDelivery` or `StopDelivery`.
    """

    channel_id: int
    attempt: int
    bindings: tuple[Binding, ...]
    identity: Bearer


@dataclass(frozen=True, slots=True)
class StartDelivery:
    """Close the subscription that delivered so far, if any, and start the one just made."""

    channel_id: int


@dataclass(frozen=True, slots=True)
class StopDelivery:
    """End subscribing and delivery; the channel itself stays."""

    channel_id: int


@dataclass(frozen=True, slots=True)
class EndChannel:
    """End everything that runs for a channel and forget it; its id does not come back."""

    channel_id: int


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Send what is queued, then close the socket with this code and reason."""

    code: CloseCode
    reason: str


class Observation(StrEnum):
    """What happened, for metrics and logs."""

    MESSAGE = "message"
    MALFORMED = "malformed"
    IGNORED = "ignored"
    JOIN = "join"
    SUBSCRIPTION_REFUSED = "subscription_refused"
    LIMITED = "limited"


@dataclass(frozen=True, slots=True)
class Observed:
    """Something to count.

    Attributes:
        what: The kind.
        label: One word or code of ours; never text of the client.
    """

    what: Observation
    label: str


Effect = (
    SendText
    | VerifyToken
    | Subscribe
    | StartDelivery
    | StopDelivery
    | EndChannel
    | CloseSocket
    | Observed
)
