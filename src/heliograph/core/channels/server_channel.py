"""One channel of one connection, on the server: SANS-IO.

States, and what moves them::

    VERIFYING ──token_verified──► SUBSCRIBING ──subscribed / refused / unavailable──► JOINED
        │            (no change entries: at once) ─────────────────────────────────────┘ │
        └──token_refused──► CLOSED ◄──leave, rejoin, expiry, bad token, hopeless, drain──┘

Invariants:

- A join is answered once, and ``ok`` only after subscribing came to an end (promise P3).
- ``phx_close`` is the last frame of a channel that was told ``ok`` or left; a refused join has
  none. ``phx_error`` stands in its place where it was our fault or one that passes: clients join
  again by themselves after it, and never after ``phx_close``.
- A verification or a subscription reports under the number it was started with; only the latest
  counts, so results that cross with a new token or a leave change nothing.
- A user's channel never becomes another user's: anonymous → user A → anonymous → user A is fine,
  user A → user B closes, whatever lies between; so does the same subject in another role, and
  service_role for who is not (`bearer.may_follow`). It is the channel that is bound, not the
  socket: each join shows a token of its own.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from heliograph.core.channels import replies
from heliograph.core.channels.bearer import (
    SERVICE_ROLE,
    Bearer,
    is_older,
    issued_s,
    may_follow,
    user_of,
)
from heliograph.core.channels.effects import (
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
from heliograph.core.channels.join_config import JoinConfig, read_token_refresh
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
from heliograph.core.tokens.refusals import expired, join_text
from heliograph.core.wire.json_codec import encode_text
from heliograph.core.wire.messages import Message, SerializerVersion
from heliograph.errors import RemoteProtocolError, TokenError
from heliograph.limits import SUBSCRIBE_RETRY_S, TOKEN_CHECK_INTERVAL_S

if TYPE_CHECKING:
    from heliograph.core.channels.bearer import User

_PRIVATE_TEXT = (
    "PrivateChannelsUnavailable: private channels are not available in this version of the server, "
    "join with private: false"
)
_SERVICE_ROLE_TEXT = "Unauthorized: the service_role key must not be used from a browser"
_OTHER_USER_TEXT = "The new token belongs to another user or role, join again"


class ChannelState(Enum):
    """How far a channel has come; see the module's diagram."""

    VERIFYING = "verifying"
    SUBSCRIBING = "subscribing"
    JOINED = "joined"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Opening:
    """What a connection came with; the same for all its channels.

    Attributes:
        version: The serializer.
        identity: Who the connection's key stands for.
        api_key: The key itself, to recognise it in joins.
        is_browser: Whether the handshake had an ``Origin`` header.
    """

    version: SerializerVersion
    identity: Bearer
    api_key: str
    is_browser: bool


class ServerChannel:
    """A joined or joining channel."""

    __slots__ = (
        "_check_s",
        "_config",
        "_expires_s",
        "_identity",
        "_is_refresh",
        "_join",
        "_newest_s",
        "_opening",
        "_retry_s",
        "_subscribe_attempt",
        "_token",
        "_user",
        "_verified_token",
        "_verify_attempt",
        "_verify_pending",
        "id",
        "state",
    )

    def __init__(
        self, channel_id: int, *, join: Message, config: JoinConfig, opening: Opening
    ) -> None:
        """Begin a channel that `start` brings to life.

        Args:
            channel_id: Unique within the connection, never used again.
            join: The phx_join message.
            config: Its parsed payload.
            opening: What the connection came with.
        """
        self.id = channel_id
        self.state = ChannelState.VERIFYING
        # What was asked for is in `config`; the rest of a payload may be a megabyte.
        self._join = replace(join, payload=None)
        self._config = config
        self._opening = opening
        self._identity: Bearer = opening.identity
        self._user: User | None = None
        self._newest_s: float | None = None
        self._token = self._own_token(config.token)
        self._verified_token = self._token
        self._is_refresh = False
        self._verify_attempt = 0
        self._verify_pending = False
        self._subscribe_attempt = 0
        self._check_s: float | None = None
        self._expires_s: float | None = None
        self._retry_s: float | None = None

    @property
    def join_ref(self) -> str | None:
        """The join_ref that clients know this channel by."""
        return self._join.join_ref if self._join.join_ref is not None else self._join.ref

    @property
    def topic(self) -> str:
        """The topic, prefix included."""
        return self._join.topic

    @property
    def is_legacy(self) -> bool:
        """Whether changes go out as events of their own type (protocol §4.1)."""
        return self._config.is_legacy

    # --- Joining ---------------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """Process the join."""
        if self._config.is_private:
            return self._refuse_join(_PRIVATE_TEXT)
        if self._token is not None:
            return [self._verify(self._token)]
        return self._speak_for(self._opening.identity, now)

    def receive_result(self, result: Result, now: Instant) -> list[Effect]:
        """Take what the shell found out; a result that nobody waits for changes nothing."""
        if self.state is ChannelState.CLOSED:
            return []
        match result:
            case TokenVerified() | TokenRefused() | TokenUnverifiable():
                return self._receive_token_result(result, now)
            case Subscribed() | SubscriptionRefused() | SubscriptionUnavailable():
                return self._receive_subscription_result(result, now)
            case Hopeless():
                return self.close_with_error(result.text)
            case Failed():
                return self._break_off("postgres_changes", result.text)
            case _ as unreachable:
                assert_never(unreachable)

    def _receive_token_result(
        self, result: TokenVerified | TokenRefused | TokenUnverifiable, now: Instant
    ) -> list[Effect]:
        """Go on with the join, the refresh or the repeated check that waited for it."""
        if result.attempt != self._verify_attempt or not self._verify_pending:
            return []
        self._verify_pending = False
        is_joining = self.state is ChannelState.VERIFYING
        match result:
            case TokenVerified(identity=identity):
                return self._speak_for(identity, now)
            case TokenRefused(error=error):
                return self._close_over_token(error)
            case TokenUnverifiable(text=text) if is_joining or self._is_refresh:
                return self._break_off("system", f"UnableToVerifyToken: {text}")
            case TokenUnverifiable():
                # A repeated check of a token that was fine: its expiry holds, ask again soon.
                self._check_s = now.monotonic_s + SUBSCRIBE_RETRY_S
                return []
            case _ as unreachable:
                assert_never(unreachable)

    def _speak_for(self, identity: Bearer, now: Instant) -> list[Effect]:
        """Use a verified bearer for what it was shown for, unless its time is over by now."""
        if identity.expires_unix_s is not None and identity.expires_unix_s <= now.unix_s:
            return self._close_over_token(expired(int(now.unix_s - identity.expires_unix_s)))
        if self.state is ChannelState.VERIFYING:
            return self._join_as(identity, now)
        if self._is_refresh:
            return self._refresh_to(identity, now)
        self._set_deadlines(identity, now)
        return []

    def _receive_subscription_result(
        self, result: Subscribed | SubscriptionRefused | SubscriptionUnavailable, now: Instant
    ) -> list[Effect]:
        """Answer the join, whatever came of it; a refused entry leaves the channel open (§10.6).

        Where the database did not answer, a subscription under an earlier token goes on until
        the next attempt, so that nothing is missed.
        """
        if result.attempt != self._subscribe_attempt:
            return []
        answer = self._answer_join()
        match result:
            case Subscribed():
                started = self._postgres_system("ok", replies.SUBSCRIBED_TEXT)
                return [*answer, started, StartDelivery(self.id)]
            case SubscriptionRefused(text=text, reason=reason):
                refused = Observed(Observation.SUBSCRIPTION_REFUSED, reason)
                told = self._postgres_system("error", text)
                return [*answer, StopDelivery(self.id), told, refused]
            case SubscriptionUnavailable(text=text):
                self._retry_s = now.monotonic_s + SUBSCRIBE_RETRY_S
                advice = f"{text}; the server tries again in {SUBSCRIBE_RETRY_S:.0f} seconds"
                return [*answer, self._postgres_system("error", advice)]
            case _ as unreachable:
                assert_never(unreachable)

    # --- Messages of the client ------------------------------------------------------------

    def receive_access_token(self, payload: object) -> list[Effect]:
        """Take a refreshed token (protocol §6); no reply on success."""
        try:
            token = read_token_refresh(payload)
        except RemoteProtocolError:
            return self.close_with_error("The token provided is not a valid JWT")
        if token is None or self._own_token(token) in {self._token, self._verified_token}:
            return []
        return [self._verify(self._own_token(token), is_refresh=True)]

    def receive_push(self, push: Message) -> list[Effect]:
        """Answer a broadcast or presence message: not available yet."""
        text = f"{push.event} is not available in this version of the server"
        if push.ref is None:
            return [self._system(push.event, "error", text)]
        return [self._send(replies.reply_error(push, text, join_ref=self.join_ref))]

    def leave(self, request: Message) -> list[Effect]:
        """End the channel because the client wants it."""
        answer = replies.reply(request, status="ok", response={}, join_ref=self.join_ref)
        return [self._send(answer), *self.close()]

    # --- Ending ----------------------------------------------------------------------------

    def close(self) -> list[Effect]:
        """End the channel and say so."""
        return [
            self._end(),
            self._send(replies.phx_close(self.topic, self.join_ref)),
        ]

    def replace(self) -> list[Effect]:
        """End the channel because its topic is joined again.

        A client of serializer 1.0.0 is not told: its frames carry no join_ref, and the Python
        client, which joins again by itself after every error, takes the close of the old channel
        for the end of the new one [measured with 2.34.1].
        """
        if self._opening.version is SerializerVersion.V1:
            return [self._end()]
        return self.close()

    def close_with_error(self, text: str) -> list[Effect]:
        """End the channel and say why (protocol §5); a join not yet answered is refused."""
        if self.state is not ChannelState.JOINED:
            return self._refuse_join(text)
        return [self._system("system", "error", text), *self.close()]

    def disconnect(self) -> list[Effect]:
        """Say that the server goes away; the socket is closed next."""
        return [self._end(), self._system("system", "ok", replies.DISCONNECT_TEXT)]

    # --- Time ------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        """Return when `tick` has something to do."""
        deadlines = (self._check_s, self._expires_s, self._retry_s)
        return min((each for each in deadlines if each is not None), default=None)

    def tick(self, now: Instant) -> list[Effect]:
        """Expire the token, check it again, or try again to subscribe."""
        if self._expires_s is not None and now.monotonic_s >= self._expires_s:
            ago_s = int(now.monotonic_s - self._expires_s)
            return self._close_over_token(expired(ago_s))
        effects: list[Effect] = []
        if self._check_s is not None and now.monotonic_s >= self._check_s:
            self._check_s = now.monotonic_s + TOKEN_CHECK_INTERVAL_S
            if not self._verify_pending:
                effects.append(self._verify(self._token))
        if self._retry_s is not None and now.monotonic_s >= self._retry_s:
            effects.append(self._subscribe())
        return effects

    # --- Inside ----------------------------------------------------------------------------

    def _close_over_token(self, error: TokenError) -> list[Effect]:
        """End the channel over its token; joins are told the code, too (protocol §4.4, §5)."""
        is_joined = self.state is ChannelState.JOINED
        return self.close_with_error(str(error) if is_joined else join_text(error))

    def _own_token(self, token: str | None) -> str | None:
        """Return None where the token is the connection's key itself."""
        return None if token == self._opening.api_key else token

    def _verify(self, token: str | None, *, is_refresh: bool = False) -> VerifyToken:
        """Ask for a verification; earlier requests of this channel are void."""
        self._verify_attempt += 1
        self._verify_pending = True
        self._is_refresh = is_refresh
        self._verified_token = token
        return VerifyToken(self.id, self._verify_attempt, token)

    def _subscribe(self) -> Subscribe:
        """Ask for a subscription; earlier requests of this channel are void."""
        self._subscribe_attempt += 1
        self._retry_s = None
        return Subscribe(
            self.id, self._subscribe_attempt, self._config.distinct_bindings(), self._identity
        )

    def _join_as(self, identity: Bearer, now: Instant) -> list[Effect]:
        """Go on with a join whose bearer is known."""
        if identity.role == SERVICE_ROLE and self._opening.is_browser:
            return self._refuse_join(_SERVICE_ROLE_TEXT)
        self._take_identity(identity, now)
        if self._config.bindings:
            self.state = ChannelState.SUBSCRIBING
            return [self._subscribe()]
        return self._answer_join()

    def _refresh_to(self, identity: Bearer, now: Instant) -> list[Effect]:
        """Continue under a new token: subscribe anew, the old one delivers until then."""
        if identity.role == SERVICE_ROLE and self._opening.is_browser:
            return self.close_with_error(_SERVICE_ROLE_TEXT)
        if not may_follow(identity, self._identity, self._user):
            return self.close_with_error(_OTHER_USER_TEXT)
        if is_older(identity, self._newest_s):
            return []
        # Another text of the same claims shows the same rows; its signer may stay longer.
        is_same = identity == self._identity
        self._take_identity(identity, now)
        return [self._subscribe()] if self._config.bindings and not is_same else []

    def _take_identity(self, identity: Bearer, now: Instant) -> None:
        """Speak for this bearer from now on."""
        self._identity = identity
        self._token = self._verified_token
        self._user = self._user or user_of(identity)
        # Kept while the channel is anonymous, too: an earlier token may not come back by way of it.
        issued = issued_s(identity)
        self._newest_s = self._newest_s if issued is None else issued
        self._set_deadlines(identity, now)

    def _break_off(self, extension: str, text: str) -> list[Effect]:
        """End the channel so that its client joins again; a join not yet answered is refused."""
        if self.state is not ChannelState.JOINED:
            return self._refuse_join(text)
        return [
            self._end(),
            self._system(extension, "error", text),
            self._send(replies.phx_error(self.topic, self.join_ref, text)),
        ]

    def _set_deadlines(self, identity: Bearer, now: Instant) -> None:
        """Plan expiry and the next check."""
        self._check_s = now.monotonic_s + TOKEN_CHECK_INTERVAL_S
        self._expires_s = None
        if identity.expires_unix_s is not None:
            self._expires_s = now.monotonic_s + identity.expires_unix_s - now.unix_s

    def _answer_join(self) -> list[Effect]:
        """Reply ok with the change entries and their ids, once."""
        if self.state is ChannelState.JOINED:
            return []
        self.state = ChannelState.JOINED
        echoed = () if self._config.is_legacy else self._config.bindings
        changes = [{**binding.parameters, "id": binding.id} for binding in echoed]
        answer = replies.reply(
            self._join,
            status="ok",
            response={"postgres_changes": changes},
            join_ref=self.join_ref,
        )
        self._config = self._config.without_echo()
        return [self._send(answer), Observed(Observation.JOIN, "ok")]

    def _refuse_join(self, reason: str) -> list[Effect]:
        """Reply with an error and be gone."""
        return [
            self._end(),
            self._send(replies.reply_error(self._join, reason, join_ref=self.join_ref)),
            Observed(Observation.JOIN, replies.reason_code(reason)),
        ]

    def _end(self) -> EndChannel:
        """Void whatever is under way."""
        self.state = ChannelState.CLOSED
        self._verify_attempt += 1
        self._subscribe_attempt += 1
        self._check_s = self._expires_s = self._retry_s = None
        return EndChannel(self.id)

    def _postgres_system(self, status: str, text: str) -> SendText:
        """Tell the channel about its change subscription."""
        return self._system("postgres_changes", status, text)

    def _system(self, extension: str, status: str, text: str) -> SendText:
        """Tell the channel something."""
        return self._send(
            replies.system(self.topic, self.join_ref, extension=extension, status=status, text=text)
        )

    def _send(self, message: Message) -> SendText:
        """Encode for the connection's serializer."""
        return SendText(encode_text(message, self._opening.version))
