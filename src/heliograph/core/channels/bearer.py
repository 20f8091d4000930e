"""What a channel has to know about the holder of a token."""

from collections.abc import Mapping
from typing import Final, Protocol

#: The role whose keys belong on servers only (S8).
SERVICE_ROLE: Final = "service_role"


class Bearer(Protocol):
    """A verified token's content; `heliograph.ports.identity.Identity` is one.

    Bearers that are equal (``==``) may see the same rows for the same time.
    """

    @property
    def role(self) -> str:
        """Database role."""
        ...

    @property
    def claims(self) -> Mapping[str, object]:
        """The token's payload."""
        ...

    @property
    def subject(self) -> str | None:
        """The ``sub`` claim; None for API keys."""
        ...

    @property
    def expires_unix_s(self) -> float | None:
        """The ``exp`` claim; None for keys that do not expire."""
        ...


def is_older(candidate: Bearer, current: Bearer) -> bool:
    """Tell whether ``candidate`` was issued to the same user before ``current`` (S4: replay)."""
    issued, before = candidate.claims.get("iat"), current.claims.get("iat")
    return (
        candidate.subject is not None
        and candidate.subject == current.subject
        and isinstance(issued, int | float)
        and isinstance(before, int | float)
        and issued < before
    )
