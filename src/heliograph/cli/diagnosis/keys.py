"""The API keys of the settings: whether the server would accept each, and for how long yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn
from heliograph.config import Secret, Settings
from heliograph.limits import DOCTOR_KEY_LIFETIME_S_MIN

_DAY_S: Final = 86_400

#: The role that the server gives whoever shows the key of a variable.
_ROLES: Final[Mapping[str, str]] = {
    "SUPABASE_ANON_KEY": "anon",
    "HELIOGRAPH_PUBLISHABLE_KEY": "anon",
    "SUPABASE_SERVICE_ROLE_KEY": "service_role",
    "HELIOGRAPH_SECRET_KEY": "service_role",
}


@dataclass(frozen=True, slots=True)
class ShownKey:
    """What the server says when somebody shows one of its keys.

    Attributes:
        variable: The variable that the key comes from.
        refusal: The text it would be refused with; None if it is accepted.
        role: The role that it stands for; None if refused.
        expires_unix_s: When it ends; None if never, or if its signature can not be checked.
    """

    variable: str
    refusal: str | None
    role: str | None
    expires_unix_s: float | None


def keys_of(settings: Settings) -> dict[str, Secret]:
    """Return the API keys that are set, by variable."""
    found = {
        "SUPABASE_ANON_KEY": settings.anon_key,
        "HELIOGRAPH_PUBLISHABLE_KEY": settings.publishable_key,
        "SUPABASE_SERVICE_ROLE_KEY": settings.service_role_key,
        "HELIOGRAPH_SECRET_KEY": settings.secret_key,
    }
    return {variable: key for variable, key in found.items() if key is not None}


def judge_keys(shown: Sequence[ShownKey], *, now_s: float, mints_keys: bool) -> list[Check]:
    """Judge the keys that could be read.

    Args:
        shown: What the server says to each.
        now_s: Seconds since 1970-01-01 UTC.
        mints_keys: Whether there is a secret, from which missing legacy keys follow.
    """
    if not shown and mints_keys:
        text = "none is set; those that `heliograph keys` prints follow from HELIOGRAPH_JWT_SECRET"
        return [ok(CheckName.API_KEYS, text)]
    return [_judge_key(key, now_s) for key in shown]


def _judge_key(key: ShownKey, now_s: float) -> Check:
    def wrong(problem: str, remedy: str) -> Check:
        return fail(CheckName.API_KEYS, problem, remedy, subject=key.variable)

    if key.refusal is not None:
        return wrong(
            f"{key.variable}: the server would refuse it: {key.refusal}",
            "unset it, and `heliograph keys` prints one that is accepted; or copy it again from"
            " where the other keys of this server come from",
        )
    expected = _ROLES[key.variable]
    if key.role != expected:
        return wrong(
            f"{key.variable}: stands for the role {key.role}, not {expected}",
            "the same key stands in two variables: put each into the variable of its kind",
        )
    if key.expires_unix_s is None:
        return ok(
            CheckName.API_KEYS, f"{key.variable}: stands for {key.role}", subject=key.variable
        )
    left_s = key.expires_unix_s - now_s
    text = f"{key.variable}: stands for {key.role}, for {left_s / _DAY_S:.0f} more days"
    if left_s >= DOCTOR_KEY_LIFETIME_S_MIN:
        return ok(CheckName.API_KEYS, text, subject=key.variable)
    return warn(
        CheckName.API_KEYS,
        text,
        "make its successor known to clients before it ends; `heliograph keys` prints one where"
        " the variable is unset",
        subject=key.variable,
    )
