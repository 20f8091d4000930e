"""Which web pages may open a socket (S1): a browser names the page's origin, nobody else does.

A WebSocket is not subject to the same-origin policy, so the server has to look. Comparison is
exact, scheme, host and port as the browser writes them: no patterns, suffixes or case folding.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final

_LOCAL_ORIGIN: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")


class OriginPolicy:
    """Decides about the ``Origin`` headers of one handshake."""

    __slots__ = ("_allows_local", "_listed")

    def __init__(self, listed: Collection[str] = (), *, allows_local: bool) -> None:
        """Set the policy.

        Args:
            listed: Origins such as ``https://app.example``, exactly as browsers send them.
            allows_local: Whether any port of this machine's own name is allowed too (``dev``).
        """
        self._listed = frozenset(listed) - {"null"}
        self._allows_local = allows_local

    def is_allowed(self, origins: Sequence[str]) -> bool:
        """Decide.

        Args:
            origins: Every ``Origin`` header of the request. None is fine: not a browser. Two are
                refused, and so is ``null`` (sandboxed frames, local files).
        """
        if not origins:
            return True
        if len(origins) > 1:
            return False
        origin = origins[0]
        if origin in self._listed:
            return True
        return self._allows_local and _LOCAL_ORIGIN.fullmatch(origin) is not None
