"""Who a command speaks as: the service role, or a user by e-mail or id.

Secrets come from the environment, then from the data folder of ``heliograph dev`` beside which the
command runs. A user's token is minted here and lives for minutes; it is renewed while the command
runs and never printed.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from heliograph import limits
from heliograph.config import Secret, Settings
from heliograph.core.tokens.minting import mint_token
from heliograph.errors import ConfigurationError, StorageError, UnknownUserError
from heliograph.ports.clock import Clock
from heliograph.postgres.data_folder import FolderSecrets, read_folder_secrets
from heliograph.postgres.sql_session import open_sql_session

_USERS: Final = """
select id::text as id, email::text as email, role::text as role,
    raw_app_meta_data as app_metadata, raw_user_meta_data as user_metadata
from auth.users
where deleted_at is null and (id = %s::uuid or lower(email::text) = lower(%s))
order by id
limit 2
"""


@dataclass(frozen=True, slots=True)
class TailSecrets:
    """What the environment and the data folder know.

    Attributes:
        jwt_secret: Signs tokens.
        database_url: Where ``auth.users`` is.
        api_key: A key that opens connections without being anybody.
        service_key: A key of the service role.
        role_claim: The claim that names the database role.
        required_claims: Claims that the server wants in every token.
    """

    jwt_secret: Secret | None
    database_url: Secret | None
    api_key: Secret | None
    service_key: Secret | None
    role_claim: str = "role"
    required_claims: Mapping[str, object] = field(default_factory=dict[str, object])

    def claims_of_role(self, role: str) -> dict[str, object]:
        """Return the claims that make a token one of this role."""
        return {**self.required_claims, "role": role, self.role_claim: role}


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A key that was given; it is who speaks."""

    key: Secret

    def api_key(self) -> str:
        """Return the key."""
        return self.key.reveal()

    def token(self) -> str | None:
        """Return None: the key is all there is."""
        return None


@dataclass(slots=True)
class MintedToken:
    """A token that is minted anew when half of its life is over.

    Attributes:
        secret: Signs it.
        claims: Everything but ``iat`` and ``exp``.
        clock: Tells when.
        given_api_key: Opens the connection; None to open it with the token.
    """

    secret: Secret
    claims: Mapping[str, object]
    clock: Clock
    given_api_key: Secret | None = None
    _newest: str = ""
    _renew_unix_s: float = 0.0

    def api_key(self) -> str:
        """Return the given key, or the token."""
        return self._current() if self.given_api_key is None else self.given_api_key.reveal()

    def token(self) -> str | None:
        """Return a token that is good for at least half of its life."""
        return self._current()

    def _current(self) -> str:
        now_s = self.clock.unix_s()
        if not self._newest or now_s >= self._renew_unix_s:
            lifetime_s = limits.TAIL_TOKEN_LIFETIME_S
            secret = self.secret.reveal()
            self._newest = mint_token(secret, self.claims, now_s=now_s, ttl_s=lifetime_s)
            self._renew_unix_s = now_s + lifetime_s / 2
        return self._newest


def read_secrets(settings: Settings, data_dir: Path) -> TailSecrets:
    """Collect what is known; the environment comes first.

    Raises:
        ConfigurationError: If the data folder's secrets file is damaged or not ours to read.
    """
    folder = read_folder_secrets(data_dir)
    database_url = settings.database_url
    if database_url is None and folder is not None and folder.port is not None:
        password = quote(folder.postgres_password, safe="")
        address = f"postgres:{password}@127.0.0.1:{folder.port}/postgres"
        database_url = Secret(f"postgresql://{address}")
    filled = with_folder_keys(settings, folder)
    return TailSecrets(
        filled.jwt_secret,
        database_url,
        settings.publishable_key or settings.anon_key or filled.publishable_key,
        settings.service_role_key or filled.secret_key,
        settings.role_claim,
        settings.jwt_claim_validators or {},
    )


def with_folder_keys(settings: Settings, folder: FolderSecrets | None) -> Settings:
    """Fill the keys that the environment leaves out with a data folder's, all of one server.

    Nothing is filled beside a secret that was set: it may be another server's.
    """
    if folder is None or settings.jwt_secret is not None:
        return settings
    return replace(
        settings,
        jwt_secret=Secret(folder.jwt_secret),
        publishable_key=settings.publishable_key or Secret(folder.publishable_key),
        secret_key=settings.secret_key or Secret(folder.secret_key),
    )


def service_keys(secrets: TailSecrets, clock: Clock) -> StaticKey | MintedToken:
    """Return the keys of the service role, which sees every row.

    Raises:
        ConfigurationError: If there is neither a key nor the secret to mint one.
    """
    if secrets.service_key is not None:
        return StaticKey(secrets.service_key)
    if secrets.jwt_secret is None:
        message = (
            "SUPABASE_SERVICE_ROLE_KEY: missing; set it, or HELIOGRAPH_JWT_SECRET, or name the data"
            " folder of `heliograph dev` with --data-dir"
        )
        raise ConfigurationError(message)
    return MintedToken(secrets.jwt_secret, secrets.claims_of_role("service_role"), clock)


async def user_keys(person: str, secrets: TailSecrets, clock: Clock) -> MintedToken:
    """Return the keys of a user.

    Args:
        person: E-mail address, in any case, or the id of a row of ``auth.users``.
        secrets: Must hold the JWT secret; and the database, unless `person` is an id.
        clock: For the times in the token.

    Raises:
        ConfigurationError: If a secret is missing.
        UnknownUserError: If there is no such user, or several share the address.
        UnavailableError: If the database does not answer.
        StorageError: If it has no users.
    """
    if secrets.jwt_secret is None:
        message = (
            "HELIOGRAPH_JWT_SECRET: missing; a user's token is signed with it; set it, or name the"
            " data folder of `heliograph dev` with --data-dir"
        )
        raise ConfigurationError(message)
    user_id = _as_uuid(person)
    if secrets.database_url is not None:
        user = await _find_user(person, user_id, secrets.database_url)
    elif user_id is not None:
        user = {"id": user_id}
    else:
        message = "DATABASE_URL: missing; an e-mail address is looked up there"
        raise ConfigurationError(message)
    role = str(user.get("role") or "authenticated")
    claims: dict[str, object] = {
        "sub": user["id"],
        "aud": role,
        "email": user.get("email") or "",
        "app_metadata": user.get("app_metadata") or {},
        "user_metadata": user.get("user_metadata") or {},
        **secrets.claims_of_role(role),
    }
    return MintedToken(secrets.jwt_secret, claims, clock, secrets.api_key)


async def _find_user(
    person: str, user_id: str | None, database_url: Secret
) -> Mapping[str, object]:
    async with open_sql_session(
        database_url.reveal(), application_name="heliograph tail"
    ) as session:
        try:
            users = await session.execute(_USERS, (user_id, person))
        except StorageError as error:
            message = (
                f"auth.users can not be asked for a user ({error}): the login of DATABASE_URL needs"
                " SELECT on it, and it needs the columns id, email, role, raw_app_meta_data,"
                " raw_user_meta_data and deleted_at, as Supabase has them"
            )
            raise StorageError(message) from error
    if not users:
        message = "auth.users has nobody with this e-mail address or id"
        raise UnknownUserError(message)
    if len(users) > 1:
        message = "several users share this e-mail address; name one by id"
        raise UnknownUserError(message)
    return users[0]


def _as_uuid(person: str) -> str | None:
    try:
        return str(uuid.UUID(person))
    except ValueError:
        return None
