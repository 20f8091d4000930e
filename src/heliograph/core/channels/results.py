"""What the shell found out about a channel; the answers to the effects of `effects`."""

from dataclasses import dataclass

from heliograph.core.channels.bearer import Bearer
from heliograph.errors import RefusalReason, TokenError


@dataclass(frozen=True, slots=True)
class TokenVerified:
    """The token of `VerifyToken` is good, and this is who holds it."""

    attempt: int
    identity: Bearer


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """The token of `VerifyToken` is not acceptable.

    Attributes:
        attempt: From the effect.
        error: Why, in the words of `core.tokens.refusals`.
    """

    attempt: int
    error: TokenError


@dataclass(frozen=True, slots=True)
class TokenUnverifiable:
    """The keys for the token of `VerifyToken` can not be had now."""

    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The subscription of `Subscribe` exists and its position is fixed."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """The subscription of `Subscribe` can not be served; repeating does not help.

    Attributes:
        attempt: From the effect.
        text: What the client is told.
        reason: What kind of refusal, for metrics.
    """

    attempt: int
    text: str
    reason: RefusalReason


@dataclass(frozen=True, slots=True)
class SubscriptionUnavailable:
    """The subscription of `Subscribe` could not be made now."""

    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Delivery to the channel has to end, and joining again would not help; the text says why."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Delivery to the channel broke off, a fault of ours; joining again may help."""

    text: str


Result = (
    TokenVerified
    | TokenRefused
    | TokenUnverifiable
    | Subscribed
    | SubscriptionRefused
    | SubscriptionUnavailable
    | Hopeless
    | Failed
)
