"""What a production server must be told; `heliograph dev` makes these things by itself."""

from collections.abc import Collection
from typing import Final

from heliograph.config.secret import Secret

#: The secret of Supabase's public examples; everybody can sign tokens with it.
PUBLISHED_SECRET: Final = Secret("super-secret-jwt-token-with-at-least-32-characters-long")
IS_PUBLISHED: Final = "HELIOGRAPH_JWT_SECRET: is the one of public examples; choose your own"

#: One entry for each need: fields of `Settings` of which one is enough, and the line to print.
_NEEDS: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (frozenset({"database_url"}), "DATABASE_URL: missing; the PostgreSQL to serve"),
    (
        frozenset({"jwt_secret", "jwks", "jwks_url"}),
        (
            "HELIOGRAPH_JWT_SECRET, HELIOGRAPH_JWKS or HELIOGRAPH_JWKS_URL: missing; one of them"
            " is needed to verify tokens"
        ),
    ),
    (
        frozenset({"jwt_secret", "anon_key", "publishable_key"}),
        (
            "SUPABASE_ANON_KEY or HELIOGRAPH_PUBLISHABLE_KEY: missing; without"
            " HELIOGRAPH_JWT_SECRET no key can be minted"
        ),
    ),
    (
        frozenset({"jwt_secret", "judge_url"}),
        (
            "HELIOGRAPH_JUDGE_URL: missing; without HELIOGRAPH_JWT_SECRET the password of the"
            " login heliograph_judge can not be derived"
        ),
    ),
    (
        frozenset({"allowed_origins"}),
        (
            "HELIOGRAPH_ALLOWED_ORIGINS: missing; list the origins of your pages, or set it empty"
            " to allow no browser"
        ),
    ),
)


def missing_for_serve(tried: Collection[str]) -> list[str]:
    """Return one line for each thing that production needs and nobody has tried to say.

    Args:
        tried: Fields of `Settings` that are set, or whose variable is malformed: that has a line
            of its own already and is not called missing as well.
    """
    return [text for fields, text in _NEEDS if fields.isdisjoint(tried)]
