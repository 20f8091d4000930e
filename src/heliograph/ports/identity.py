"""Who is asking: the verified content of a token."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A database role and the claims that policies may read.

    Two identities with equal ``role`` and ``claims_json`` are judged together.

    Attributes:
        role: Database role name (``anon``, ``authenticated``, ``service_role`` or one allowed by
            the settings).
        claims_json: The token's payload as JSON text, what ``request.jwt.claims`` is set to.
        claims: The same, decoded.
        subject: The ``sub`` claim as text, not necessarily a UUID; None if there is none.
        expires_unix_s: ``exp``; None only for identities that we mint ourselves.
    """

    role: str
    claims_json: str
    claims: Mapping[str, object]
    subject: str | None
    expires_unix_s: float | None
