"""What ``heliograph dev`` makes by itself for whatever the environment does not say."""

from dataclasses import dataclass

from heliograph.config.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentSecrets:
    """What ``heliograph dev`` makes by itself for whatever the environment does not say.

    Attributes:
        database_url: URL of the embedded PostgreSQL; None if DATABASE_URL is set.
        jwt_secret: Signs tokens and the legacy keys.
        publishable_key: `sb_publishable_…`.
        secret_key: `sb_secret_…`.
    """

    database_url: Secret | None
    jwt_secret: Secret
    publishable_key: Secret
    secret_key: Secret
