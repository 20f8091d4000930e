"""The whole report: every subject asked, in the order in which one needs the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heliograph.cli.diagnosis.check import Check, CheckName, CheckStatus, fail, ok, skip
from heliograph.cli.diagnosis.clock import judge_clock
from heliograph.cli.diagnosis.database_visit import DatabaseVisit
from heliograph.cli.diagnosis.environment import judge_environment
from heliograph.cli.diagnosis.keys import ShownKey, judge_keys, keys_of
from heliograph.cli.diagnosis.ordering import explain_ordering
from heliograph.cli.diagnosis.origins import judge_allowed_origins, judge_origin
from heliograph.cli.diagnosis.server import Listener, judge_server
from heliograph.cli.diagnosis.server_visit import address_of, visit_server
from heliograph.cli.diagnosis.state_folder import judge_state_folder
from heliograph.cli.diagnosis.tokens import (
    TokenContext,
    judge_good_token,
    judge_refused_token,
    judge_unknown_token,
)
from heliograph.config import Bounds, Settings, unknown_variables
from heliograph.errors import ConfigurationError, TokenError, UnavailableError
from heliograph.ports.clock import Clock
from heliograph.ports.identity import Identity
from heliograph.server.authentication import make_keys
from heliograph.server.jwks import RemoteKeys
from heliograph.server.keys import Keys


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be looked at.

    Attributes:
        environ: Environment variables.
        token: A token or API key to judge; None for none.
        origin: A web origin to judge; None for none.
        url: Address of a running server; None for where `serve` would listen.
    """

    environ: Mapping[str, str]
    token: str | None = None
    origin: str | None = None
    url: str | None = None


async def diagnose(question: Question, clock: Clock) -> list[Check]:
    """Find out what can be found out; what can not be asked becomes a line, never an error.

    Returns:
        The checks in the order of `CheckName`.
    """
    settings, malformed, missing = Settings.examine(question.environ)
    unknown = unknown_variables(question.environ, [Settings, Bounds])
    checks = judge_environment(malformed, missing, unknown)
    is_malformed = "allowed_origins" in malformed
    checks += judge_allowed_origins(settings, is_malformed=is_malformed)
    if question.origin is not None:
        checks.append(judge_origin(question.origin, settings))
    checks.append(judge_state_folder(settings))
    keys = _make_keys(settings, clock, checks)
    checks += await _look_at_keys(settings, keys, clock)
    bearer = await _identify(question.token, keys)

    facts, reading = await visit_server(question.url or address_of(settings), clock)
    checks += judge_server(facts, was_named=question.url is not None)
    answers = facts.listener is Listener.OURS
    if answers and reading is not None:
        checks.append(judge_clock(CheckName.CLOCK_SERVER, f"the server at {facts.url}", reading))

    identity = bearer if isinstance(bearer, Identity) else None
    visit = DatabaseVisit(settings, clock, answers, identity)
    await visit.run()
    checks += visit.checks
    if question.token is not None:
        context = TokenContext(settings, clock.unix_s(), visit.roles)
        checks.append(_judge_token(question.token, bearer, context))
    checks.append(explain_ordering())
    order = list(CheckName)
    return sorted(checks, key=lambda check: order.index(check.name))


def is_well(checks: Sequence[Check]) -> bool:
    """Tell whether nothing failed; warnings are allowed."""
    return not any(check.status is CheckStatus.FAIL for check in checks)


def _make_keys(settings: Settings, clock: Clock, checks: list[Check]) -> Keys | None:
    try:
        return make_keys(settings, clock)
    except ConfigurationError as error:
        remedy = "correct HELIOGRAPH_JWT_SECRET or HELIOGRAPH_JWKS: docs/reference/config.md"
        checks.append(fail(CheckName.KEY_SET, str(error), remedy))
        return None


async def _look_at_keys(settings: Settings, keys: Keys | None, clock: Clock) -> list[Check]:
    checks: list[Check] = []
    if settings.jwks_url is not None:
        remote = RemoteKeys(settings.jwks_url, clock)
        try:
            await remote.refresh()
            text = f"HELIOGRAPH_JWKS_URL answers with {len(remote.keys)} usable keys"
            checks.append(ok(CheckName.KEY_SET, text))
        except UnavailableError as error:
            remedy = "open the address from this machine; it must answer 200 with the issuer's keys"
            checks.append(fail(CheckName.KEY_SET, str(error), remedy))
    if keys is None:
        return checks
    shown = [
        await _show(variable, key.reveal(), keys) for variable, key in keys_of(settings).items()
    ]
    mints = settings.jwt_secret is not None
    return [*checks, *judge_keys(shown, now_s=clock.unix_s(), mints_keys=mints)]


async def _show(variable: str, key: str, keys: Keys) -> ShownKey:
    try:
        identity = await keys.identify(key)
    except (TokenError, UnavailableError) as error:
        return ShownKey(variable, str(error), None, None)
    return ShownKey(variable, None, identity.role, identity.expires_unix_s)


async def _identify(
    token: str | None, keys: Keys | None
) -> Identity | TokenError | UnavailableError | None:
    if token is None or keys is None:
        return None
    try:
        return await keys.identify(token.strip())
    except (TokenError, UnavailableError) as error:
        return error


def _judge_token(
    token: str, bearer: Identity | TokenError | UnavailableError | None, context: TokenContext
) -> Check:
    match bearer:
        case Identity():
            return judge_good_token(bearer, context)
        case TokenError():
            return judge_refused_token(token, bearer, context)
        case UnavailableError():
            return judge_unknown_token(str(bearer))
        case None:
            return skip(CheckName.TOKEN, "without readable keys nothing can be said of it")
