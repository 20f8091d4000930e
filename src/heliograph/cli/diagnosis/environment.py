"""What the environment variables say: malformed, missing, unknown; keys among them.

`examine` of the settings has done the work; here its lines become checks.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn

#: Fields of `Settings` whose problems are told under another name than "malformed".
_NAMES: Final[Mapping[str, CheckName]] = {
    "jwt_secret": CheckName.API_KEYS,
    "anon_key": CheckName.API_KEYS,
    "service_role_key": CheckName.API_KEYS,
    "publishable_key": CheckName.API_KEYS,
    "secret_key": CheckName.API_KEYS,
    "jwks": CheckName.KEY_SET,
    "jwks_url": CheckName.KEY_SET,
    "allowed_origins": CheckName.ALLOWED_ORIGINS,
}

_REMEDIES: Final[Mapping[CheckName, str]] = {
    CheckName.ENVIRONMENT_MALFORMED: (
        "correct it; docs/reference/config.md says what each variable takes"
    ),
    CheckName.API_KEYS: (
        "copy the key again, whole and into the variable of its kind; `heliograph keys` prints the"
        " ones that go with HELIOGRAPH_JWT_SECRET"
    ),
    CheckName.KEY_SET: "correct it, or unset it if tokens are signed with HELIOGRAPH_JWT_SECRET",
    CheckName.ALLOWED_ORIGINS: (
        "write each origin as a browser sends it: scheme://host or scheme://host:port, nothing"
        " behind it, separated by commas"
    ),
}


def judge_environment(
    malformed: Mapping[str, str], missing: Sequence[str], unknown: Sequence[str]
) -> list[Check]:
    """Judge what reading the settings has found.

    Args:
        malformed: One line for each field of the settings whose variable is wrong: ``NAME: why``.
        missing: One line for each thing that `serve` needs: ``NAME: missing; what for``.
        unknown: Variables that begin like ours and are none.
    """
    return [
        *[_missing(line) for line in missing],
        *([] if missing else [ok(CheckName.ENVIRONMENT_MISSING, "all that `serve` needs is set")]),
        *_malformed(malformed),
        *[_unknown(name) for name in unknown],
        *([] if unknown else [ok(CheckName.ENVIRONMENT_UNKNOWN, "no misspelt variables")]),
    ]


def _missing(line: str) -> Check:
    names, _, _ = line.partition(":")
    where = "where `heliograph serve` and `heliograph doctor` are started"
    is_one = " " not in names
    remedy = f"set it {where}: export {names}=…" if is_one else f"set one of them {where}"
    return fail(CheckName.ENVIRONMENT_MISSING, line, remedy, subject=names)


def _malformed(malformed: Mapping[str, str]) -> list[Check]:
    found: list[Check] = []
    for field, line in malformed.items():
        name = _NAMES.get(field, CheckName.ENVIRONMENT_MALFORMED)
        found.append(fail(name, line, _REMEDIES[name], subject=line.partition(":")[0]))
    if not any(check.name is CheckName.ENVIRONMENT_MALFORMED for check in found):
        found.append(ok(CheckName.ENVIRONMENT_MALFORMED, "every variable can be read"))
    return found


def _unknown(name: str) -> Check:
    return warn(
        CheckName.ENVIRONMENT_UNKNOWN,
        f"{name}: no such setting, so it has no effect",
        "correct its spelling (docs/reference/config.md lists them all), or unset it",
        subject=name,
    )
