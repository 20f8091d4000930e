"""Which web pages may connect, and whether a given one may."""

import re
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, skip, warn
from heliograph.config import Settings
from heliograph.config.values import parse_origins
from heliograph.server.origins import OriginPolicy

_PAGE: Final = re.compile(r"(?P<origin>https?://[^/?#\s,]+)[/?#]\S*", re.IGNORECASE)


def judge_allowed_origins(settings: Settings, *, is_malformed: bool) -> list[Check]:
    """Judge the setting; nothing if `environment.py` has said already what is wrong with it."""
    allowed = settings.allowed_origins
    if is_malformed:
        return []
    if allowed is None:
        return [skip(CheckName.ALLOWED_ORIGINS, "HELIOGRAPH_ALLOWED_ORIGINS is not set")]
    if not allowed:
        return [
            warn(
                CheckName.ALLOWED_ORIGINS,
                "HELIOGRAPH_ALLOWED_ORIGINS is empty: no web page may connect",
                "if browsers are to connect: export HELIOGRAPH_ALLOWED_ORIGINS=https://app.example",
            )
        ]
    return [ok(CheckName.ALLOWED_ORIGINS, f"pages of {', '.join(allowed)} may connect")]


def judge_origin(given: str, settings: Settings) -> Check:
    """Tell whether pages of an origin may connect, and what to set if not.

    Args:
        given: As typed; a page's address stands for the origin of that page.
        settings: The settings.
    """
    page = _PAGE.fullmatch(given.strip())
    try:
        found = parse_origins(page["origin"] if page is not None else given)
    except ValueError:
        found = ()
    if len(found) != 1:
        return fail(
            CheckName.ORIGIN,
            "--origin is no origin that a browser would send, so no page has it",
            "give one like https://app.example or http://localhost:3000; `location.origin` in the"
            " browser's console prints a page's own (`null` for files and sandboxed frames, which"
            " are always refused)",
        )
    origin = found[0]
    allowed = settings.allowed_origins or ()
    if OriginPolicy(allowed, allows_local=False).is_allowed([origin]):
        return ok(CheckName.ORIGIN, f"pages of {origin} may connect")
    wanted = ",".join((*allowed, origin))
    return fail(
        CheckName.ORIGIN,
        f"pages of {origin} are refused with 403: HELIOGRAPH_ALLOWED_ORIGINS lists"
        f" {', '.join(allowed) or 'none'}",
        f"export HELIOGRAPH_ALLOWED_ORIGINS={wanted} and start the server again (`heliograph dev`"
        " allows pages of this machine without it)",
    )
