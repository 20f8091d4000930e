"""`heliograph keys`: print the keys of a server, or mint a token for a user or a role.

What it prints is secret; it goes to standard output and nowhere else.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, cast

import msgspec
import typer

from heliograph.cli.tail_keys import read_secrets, user_keys, with_folder_keys
from heliograph.cli.terminal import Terminal
from heliograph.config import Secret, Settings
from heliograph.core.tokens.minting import mint_legacy_key, mint_token
from heliograph.core.tokens.required_claims import unmet_claim
from heliograph.errors import ConfigurationError
from heliograph.postgres.data_folder import read_folder_secrets
from heliograph.server.system_clock import SystemClock

#: Ten years, as long as the legacy keys of Supabase projects live.
_TTL_S_MAX: Final = 315_576_000

_TTL_S_DEFAULT: Final = 3_600


@dataclass(frozen=True, slots=True)
class MintRequest:
    """The token that is wanted.

    Attributes:
        person: E-mail address or id of a row of ``auth.users``; None for nobody in particular.
        role: Database role; None for the user's own.
        claims: More claims; they win over the user's. None that something else sets.
        ttl_s: Seconds that the token is good for.
    """

    person: str | None
    role: str | None
    claims: Mapping[str, object]
    ttl_s: int


def register(app: typer.Typer) -> None:
    """Add the command ``keys`` to the program."""
    app.command("keys")(keys)


def keys(
    person: Annotated[
        str | None,
        typer.Option("--user", help="Mint a token for this user: e-mail address or id."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(help="Mint a token with this database role, one of HELIOGRAPH_ROLES."),
    ] = None,
    claims: Annotated[
        str | None,
        typer.Option(help="More claims of the token, a JSON object; not role, exp or iat."),
    ] = None,
    ttl_s: Annotated[
        int,
        typer.Option("--ttl", min=1, max=_TTL_S_MAX, help="Seconds that the token is good for."),
    ] = _TTL_S_DEFAULT,
    is_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    data_dir: Annotated[
        Path, typer.Option(help="Data folder of `heliograph dev`, where the variables are not set.")
    ] = Path("heliograph-data"),
) -> None:
    """Print the server's keys; with --user or --role mint a token."""
    settings = Settings.from_environ(os.environ)
    terminal = Terminal()
    if person is None and role is None:
        if claims is not None:
            message = "--claims needs --user or --role: a token without a role is good for nothing"
            raise typer.BadParameter(message)
        _write_keys(known_keys(settings, data_dir), terminal, is_json=is_json)
        return
    request = MintRequest(person, role, _parse_claims(claims), ttl_s)
    token = asyncio.run(mint(request, settings, data_dir))
    if is_json:
        terminal.write_json({"access_token": token})
    else:
        terminal.write(token)


def known_keys(settings: Settings, data_dir: Path) -> dict[str, str]:
    """Return every key that environment and data folder know or that follows from the secret.

    Returns:
        Of ``anon_key``, ``service_role_key``, ``publishable_key``, ``secret_key`` and
        ``jwt_secret`` those that there are, in this order.

    Raises:
        ConfigurationError: If there is none at all, or the folder's secrets are damaged.
    """
    settings = with_folder_keys(settings, read_folder_secrets(data_dir))
    jwt_secret = settings.jwt_secret
    found: dict[str, Secret | None] = {
        "anon_key": settings.anon_key or minted_key(settings, "anon"),
        "service_role_key": settings.service_role_key or minted_key(settings, "service_role"),
        "publishable_key": settings.publishable_key,
        "secret_key": settings.secret_key,
        "jwt_secret": jwt_secret,
    }
    known = {name: key.reveal() for name, key in found.items() if key is not None}
    if not known:
        message = (
            "HELIOGRAPH_JWT_SECRET: missing; set it or the keys themselves, or name the data "
            "folder of `heliograph dev` with --data-dir"
        )
        raise ConfigurationError(message)
    return known


def minted_key(settings: Settings, role: str) -> Secret | None:
    """Return the legacy key of a role, such that the server of these settings accepts it.

    None without a secret, and where HELIOGRAPH_ROLES leaves the role out.
    """
    if settings.jwt_secret is None or role not in settings.roles:
        return None
    key = mint_legacy_key(
        settings.jwt_secret.reveal(),
        role,
        role_claim=settings.role_claim,
        required_claims=settings.jwt_claim_validators or {},
    )
    return Secret(key)


async def mint(request: MintRequest, settings: Settings, data_dir: Path) -> str:
    """Mint a token that the server of these settings accepts.

    Raises:
        ConfigurationError: If the secret, or the database to look a user up in, is missing; if the
            role is not one of the settings; or if a claim is wanted that something else sets.
        AuthorizationError: If there is no such user.
        UnavailableError: If the database does not answer.
    """
    _check_claims(request.claims, settings)
    clock = SystemClock()
    known = read_secrets(settings, data_dir)
    if known.jwt_secret is None:
        message = (
            "HELIOGRAPH_JWT_SECRET: missing; tokens are signed with it; set it, or name the data "
            "folder of `heliograph dev` with --data-dir"
        )
        raise ConfigurationError(message)
    claims: dict[str, object] = {**known.required_claims}
    if request.person is not None:
        claims.update((await user_keys(request.person, known, clock)).claims)
    claims.update(request.claims)
    if request.role is not None:
        claims["role"] = claims[settings.role_claim] = request.role
    _check_role(str(claims[settings.role_claim]), settings)
    return mint_token(known.jwt_secret.reveal(), claims, now_s=clock.unix_s(), ttl_s=request.ttl_s)


def _check_role(role: str, settings: Settings) -> None:
    if role not in settings.roles:
        message = (
            f"the role `{role}` is not in HELIOGRAPH_ROLES ({', '.join(settings.roles)}): the"
            " server would refuse the token; name another with --role, or add it there"
        )
        raise ConfigurationError(message)


def _check_claims(claims: Mapping[str, object], settings: Settings) -> None:
    """Refuse what would be dropped, or would make a token that the server refuses."""
    setters = {
        "role": "is set by --role",
        settings.role_claim: "is set by --role",
        "exp": "is set by --ttl",
        "iat": "is the time of minting",
    }
    found = [f"`{name}` {setter}" for name, setter in setters.items() if _has(claims, name)]
    required = settings.jwt_claim_validators or {}
    unmet = unmet_claim({**required, **claims}, required)
    if unmet is not None:
        found.append(f"`{unmet}` is set by HELIOGRAPH_JWT_CLAIM_VALIDATORS")
    if found:
        message = f"--claims: {'; '.join(found)}; leave it out"
        raise ConfigurationError(message)


def _has(claims: Mapping[str, object], name: str) -> bool:
    """Tell whether a claim is there, by its whole name or as a path through objects."""
    first, _, rest = name.partition(".")
    inner = claims.get(first)
    if name in claims:
        return True
    return bool(rest) and isinstance(inner, dict) and _has(cast("dict[str, object]", inner), rest)


def _write_keys(known: Mapping[str, str], terminal: Terminal, *, is_json: bool) -> None:
    if is_json:
        terminal.write_json(known)
        return
    for name, key in known.items():
        terminal.write(f"{name:<17} {key}")


def _parse_claims(text: str | None) -> Mapping[str, object]:
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        message = "--claims must be a JSON object"
        raise typer.BadParameter(message) from error
