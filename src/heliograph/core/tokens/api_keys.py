"""Opaque API keys (``sb_publishable_…``, ``sb_secret_…``) and the roles they stand for.

They are looked up before any JWT code sees them (auth-api §7). Only their hashes are kept in
memory, and every lookup compares with all of them in constant time.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

PUBLISHABLE_PREFIX: Final = "sb_publishable_"
SECRET_PREFIX: Final = "sb_secret_"  # noqa: S105 - the prefix is public, what follows is secret

_ANY_PREFIX: Final = "sb_"


def is_opaque_key(text: str) -> bool:
    """Tell whether a text is an API key of the new kind, known or not."""
    return text.startswith(_ANY_PREFIX)


class ApiKeys:
    """The keys of this server; immutable."""

    def __init__(self, roles: Mapping[str, str]) -> None:
        """Keep the keys' hashes.

        Args:
            roles: For each key the role that it stands for. May hold legacy keys (JWTs) too.
        """
        self._roles = tuple((_hash_of(key), role) for key, role in roles.items())

    def role_of(self, key: str) -> str | None:
        """Return the role of a key; None if it is not one of ours."""
        digest = _hash_of(key)
        found: str | None = None
        for known, role in self._roles:
            # No early exit: the time must not say which key it is.
            if hmac.compare_digest(known, digest):
                found = role
        return found


def _hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest()
