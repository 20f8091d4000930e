"""Every error of Heliograph, as one tree; each class carries a stable code.

The tree::

    HeliographError
    ├── ProtocolError            bytes or messages that break a protocol
    │   ├── LocalProtocolError   we would have broken it: our bug
    │   └── RemoteProtocolError  the peer broke it: bad bytes from outside
    │       └── FrameError       a WebSocket frame that ends its connection
    ├── AuthorizationError       the caller may not do this
    │   ├── UnknownUserError     nobody of that e-mail address or id
    │   └── TokenError           the token itself is not acceptable
    ├── LimitExceededError       a bound of ``limits.py`` was reached
    ├── UnavailableError         something we depend on does not answer now
    │   ├── JudgementUnavailableError  PostgreSQL could not judge: repeat, then ``resync``
    │   ├── PortTakenError       another program listens on the TCP port we were to use
    │   └── ReplicationError     the change stream broke off; the reader reconnects
    ├── ConfigurationError       settings, database or environment must be changed first
    │   ├── PublicationRefusedError  a table that can not be streamed as it is
    │   └── RoleUnusableError    the judging login can not assume the subscriber's role
    ├── SubscriptionRefusedError a subscription that can not be served, with the client's text
    └── StorageError             PostgreSQL refused or lost something we needed

Rules: ``code`` is stable snake_case and unique (checked when a class is made); ``retryable`` says
whether the same call may succeed later without anybody changing anything. Messages say what was
expected and what was found; they never hold secrets or row values.
"""

from typing import ClassVar, Literal, TypeAlias

#: Kinds of refused change subscriptions: the entry breaks the protocol's grammar; it names no table
#: that the role is served; the table or PostgreSQL does not accept column, operator or value; the
#: role of the token can not be assumed.
RefusalReason: TypeAlias = Literal["malformed", "not_enabled", "not_accepted", "role_not_usable"]

_classes_by_code: dict[str, type["HeliographError"]] = {}


class HeliographError(Exception):
    """Base of every error that Heliograph raises on purpose."""

    code: ClassVar[str] = "heliograph_error"
    retryable: ClassVar[bool] = False
    #: What the reader should do about it; printed in the generated error reference.
    remedy: ClassVar[str] = "Read the message; it names what was expected and what was found."

    def __init_subclass__(cls) -> None:
        """Register the class and refuse a code that is taken."""
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            message = f"{cls.__name__} must define its own error code"
            raise TypeError(message)
        other = _classes_by_code.get(cls.code)
        if other is not None and other.__qualname__ != cls.__qualname__:
            message = f"error code {cls.code!r} belongs to {other.__qualname__}"
            raise TypeError(message)
        _classes_by_code[cls.code] = cls


class ProtocolError(HeliographError):
    """A message or a byte sequence breaks the protocol it belongs to."""

    code = "protocol_error"
    remedy = "Compare the message with docs/reference/protocol.md."


class LocalProtocolError(ProtocolError):
    """Our own side asked for something that the protocol forbids: a bug in Heliograph."""

    code = "local_protocol_error"
    remedy = "Report it with the log line; it is a bug in Heliograph."


class RemoteProtocolError(ProtocolError):
    """The peer sent bytes or a message that break the protocol."""

    code = "remote_protocol_error"
    remedy = "Correct the client; the message names the offending field."


class FrameError(RemoteProtocolError):
    """A WebSocket frame that the connection can not survive.

    Attributes:
        close_code: What the socket is closed with (RFC 6455 section 7.4.1).
    """

    code = "websocket_frame_error"
    remedy = "Send masked, uncompressed frames; see MESSAGE_BYTES_MAX and MESSAGE_FRAGMENTS_MAX."

    def __init__(self, message: str, *, close_code: int) -> None:
        """Keep the text and the code to close with."""
        super().__init__(message)
        self.close_code = close_code


class AuthorizationError(HeliographError):
    """The caller may not do what it asked for."""

    code = "not_authorized"
    remedy = "Use a token whose role has the privilege, or grant it."


class UnknownUserError(AuthorizationError):
    """There is no such user, or several share the e-mail address."""

    code = "user_unknown"
    remedy = "SELECT id, email FROM auth.users; shows them. `heliograph dev` prints the demo's."


class TokenError(AuthorizationError):
    """A token or an API key is missing, malformed, expired or signed by nobody we know.

    Attributes:
        reference_code: The name that Supabase Realtime puts before the text in a join error,
            for example ``InvalidJWTToken``.
    """

    code = "token_not_acceptable"
    remedy = "Mint a new token (`heliograph keys`), or check the secret and the JWKS settings."

    def __init__(self, message: str, *, reference_code: str) -> None:
        """Keep the text and the reference's name for it."""
        super().__init__(message)
        self.reference_code = reference_code


class LimitExceededError(HeliographError):
    """A bound of ``limits.py`` was reached; the message names the bound."""

    code = "limit_exceeded"
    retryable = True
    remedy = "Send less, or raise the named setting (docs/reference/limits.md)."


class UnavailableError(HeliographError):
    """A part that we depend on does not answer at the moment."""

    code = "unavailable"
    retryable = True
    remedy = "Wait and repeat; `/ready` and the log name the part that is missing."


class PortTakenError(UnavailableError):
    """Another program listens on the TCP port that was to be used."""

    code = "port_taken"
    remedy = "Choose another port or end the other program; embedded PostgreSQL moves by itself."


class JudgementUnavailableError(UnavailableError):
    """PostgreSQL could not judge now (connection, resources, timeout): repeat, then `resync`.

    Attributes:
        timed_out: Whether judging took too long, one statement or all together.
    """

    code = "judgement_unavailable"
    remedy = "Look at the policies' cost and at PostgreSQL's connections; see the metrics."

    def __init__(self, message: str, *, timed_out: bool) -> None:
        """Keep the text and whether it was the timeout."""
        super().__init__(message)
        self.timed_out = timed_out


class ReplicationError(UnavailableError):
    """The replication connection ended, or PostgreSQL refused to start it.

    Attributes:
        sqlstate: PostgreSQL's five characters; None if the connection just broke.
    """

    code = "replication_interrupted"
    remedy = "Nothing: the reader reconnects by itself. If it goes on, `/ready` names the cause."

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        """Keep the text and the SQLSTATE."""
        super().__init__(message)
        self.sqlstate = sqlstate


class ConfigurationError(HeliographError):
    """Settings, the database or the environment must be changed before we can go on."""

    code = "configuration_error"
    remedy = "The message lists every setting that is missing or wrong and what to run."


class PublicationRefusedError(ConfigurationError):
    """A table can not be added to a publication as it is; the message says why."""

    code = "publication_refused"
    remedy = "Change the table as the message says, or publish another one."


class RoleUnusableError(ConfigurationError):
    """The judging login can not assume the subscriber's role (dropped, not granted)."""

    code = "role_not_usable"
    remedy = "Run `heliograph migrate`, or grant the role to the judging login."


class SubscriptionRefusedError(HeliographError):
    """A change subscription can not be served; the message is the text that the client gets.

    Attributes:
        reason: What kind of refusal, for metrics.
    """

    code = "subscription_refused"
    remedy = "Correct the subscription: table, columns, filter, publication or privileges."

    def __init__(self, message: str, *, reason: RefusalReason = "malformed") -> None:
        """Keep the text and the kind."""
        super().__init__(message)
        self.reason: RefusalReason = reason


class StorageError(HeliographError):
    """PostgreSQL refused or lost something that we needed."""

    code = "storage_error"
    remedy = "Look at the PostgreSQL log; the message names the statement's purpose."


def error_classes() -> dict[str, type[HeliographError]]:
    """Return every error class by its code, for the generated reference."""
    return {HeliographError.code: HeliographError, **_classes_by_code}
