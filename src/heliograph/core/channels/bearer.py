"""What a channel has to know about the holder of a token."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

#: The role whose keys belong on servers only (S8).
SERVICE_ROLE: Final = "service_role"

#: The roles of API keys; without a subject they stand for nobody in particular.
_KEY_ROLES: Final = frozenset({"anon", SERVICE_ROLE})


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
        """The ``sub`` claim as text; None for API keys."""
        ...

    @property
    def expires_unix_s(self) -> float | None:
        """The ``exp`` claim; None for keys that do not expire."""
        ...


class User(NamedTuple):
    """Whom a channel belongs to: one subject in one role."""

    role: str
    subject: str | None


def user_of(bearer: Bearer) -> User | None:
    """Return who a bearer is; None for an API key."""
    is_key = bearer.subject is None and bearer.role in _KEY_ROLES
    return None if is_key else User(bearer.role, bearer.subject)


def may_follow(candidate: Bearer, current: Bearer, user: User | None) -> bool:
    """Tell whether a channel may go on as ``candidate`` (S4: no widening of subject or role).

    Anonymous may become a user, and be anonymous again; a user never becomes another one, the same
    subject in another role included. Nobody becomes service_role who is not.

    Args:
        candidate: Who the new token stands for.
        current: Who the channel speaks for now.
        user: The user that it has ever spoken for; None if there was none yet.
    """
    if candidate.role == SERVICE_ROLE and current.role != SERVICE_ROLE:
        return False
    named = user_of(candidate)
    return named is None or user is None or named == user


def issued_s(bearer: Bearer) -> float | None:
    """Return the ``iat`` of a token with a subject; None for others, and where there is none."""
    issued = bearer.claims.get("iat")
    return issued if isinstance(issued, int | float) and bearer.subject is not None else None


def is_older(candidate: Bearer, newest_s: float | None) -> bool:
    """Tell whether a token was issued before the newest that its user has shown (S4: replay).

    Args:
        candidate: Who the token stands for; may be the channel's user (`may_follow`).
        newest_s: The latest `issued_s` of the channel; None if there was none.
    """
    issued = issued_s(candidate)
    return issued is not None and newest_s is not None and issued < newest_s
