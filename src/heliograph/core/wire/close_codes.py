"""The codes that our server closes a WebSocket with, what they mean and whether to come back.

Ranges: 1000-1015 are those of RFC 6455; 3000-3499 are ours and mean "connect again". All official
Supabase clients reconnect after any code that they did not send themselves, with growing waits;
``retryable`` says whether that helps without anybody changing something.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CloseCode:
    """One way to close a WebSocket.

    Attributes:
        number: The status code in the close frame.
        name: Stable snake_case word, the ``code`` label of the metric.
        meaning: What happened, for the generated reference.
        retryable: Whether connecting again with the same client may work.
    """

    number: int
    name: str
    meaning: str
    retryable: bool


NORMAL: Final = CloseCode(1000, "normal", "The client closed the socket.", retryable=True)
GOING_AWAY: Final = CloseCode(
    1001, "going_away", "The client sent more joins per second than allowed.", retryable=True
)
PROTOCOL_ERROR: Final = CloseCode(
    1002,
    "protocol_error",
    "A frame breaks RFC 6455, for example by not being masked.",
    retryable=False,
)
NO_STATUS: Final = CloseCode(
    1005, "no_status", "The client closed the socket without a code.", retryable=True
)
ABNORMAL: Final = CloseCode(
    1006, "abnormal", "The connection was lost without a close frame.", retryable=True
)
INVALID_TEXT: Final = CloseCode(
    1007, "invalid_text", "A text message is not valid UTF-8.", retryable=False
)
POLICY_VIOLATION: Final = CloseCode(
    1008,
    "policy_violation",
    "The client sent nothing in time, no join for ten minutes, or floods the server.",
    retryable=False,
)
MESSAGE_TOO_BIG: Final = CloseCode(
    1009, "message_too_big", "A message is larger than the limit.", retryable=False
)
INTERNAL_ERROR: Final = CloseCode(
    1011, "internal_error", "A bug in the server ended this connection.", retryable=True
)
SERVICE_RESTART: Final = CloseCode(
    1012, "service_restart", "The server stops or restarts; connect again.", retryable=True
)
SLOW_CONSUMER: Final = CloseCode(
    3008,
    "slow_consumer",
    "The client did not read for ten seconds, or more waits than the outbound limits allow.",
    retryable=True,
)
SILENT: Final = CloseCode(
    3010, "silent", "Nothing was received for sixty seconds, no heartbeat either.", retryable=True
)

#: Every code that the server sends or records, in numeric order.
CLOSE_CODES: Final = (
    NORMAL,
    GOING_AWAY,
    PROTOCOL_ERROR,
    NO_STATUS,
    ABNORMAL,
    INVALID_TEXT,
    POLICY_VIOLATION,
    MESSAGE_TOO_BIG,
    INTERNAL_ERROR,
    SERVICE_RESTART,
    SLOW_CONSUMER,
    SILENT,
)

#: Codes that a close frame may carry: those of the protocol, of libraries, of applications.
_ON_THE_WIRE: Final = (range(1000, 1004), range(1007, 1015), range(3000, 5000))


def is_valid_on_the_wire(number: int) -> bool:
    """Tell whether a close frame may carry a code.

    Source: https://www.rfc-editor.org/rfc/rfc6455#section-7.4 and the registry of codes made by it.
    """
    return any(number in allowed for allowed in _ON_THE_WIRE)
