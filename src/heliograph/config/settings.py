"""The settings of a Heliograph server, read from environment variables.

`Settings.from_environ` accepts a partial environment; `Settings.for_serve` demands what production
needs; `Settings.for_dev` fills what is missing. All problems are collected and raised as one error.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, TypeAlias

from heliograph import limits
from heliograph.config.bounds import Bounds
from heliograph.config.development_secrets import DevelopmentSecrets
from heliograph.config.legacy_key import (
    has_expired,
    is_signed,
    lacking_claim,
    legacy_key_parser,
)
from heliograph.config.postgres_url import parse_postgres_url, url_with_login
from heliograph.config.secret import Secret
from heliograph.config.serve_requirements import IS_PUBLISHED, PUBLISHED_SECRET, missing_for_serve
from heliograph.config.setting import Setting, raise_problems, read_fields, settings_of
from heliograph.config.values import (
    choice_parser,
    integer_parser,
    member_parser,
    parse_claims,
    parse_extensions,
    parse_folder,
    parse_hmac_secret,
    parse_host,
    parse_key_set,
    parse_key_set_url,
    parse_name,
    parse_names,
    parse_origins,
    parse_public_url,
    parse_slot_name,
    parse_table_names,
    prefixed_key_parser,
)
from heliograph.core.matching.visibility import DeleteVisibility, LeaveEvents
from heliograph.errors import ConfigurationError

Attach: TypeAlias = Literal["auto", "always", "never"]
Reader: TypeAlias = Literal["auto", "streaming", "polling"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["json", "console"]

#: The login that judges row versions, where no URL of its own is given.
JUDGE_LOGIN: Final = "heliograph_judge"

#: What the judge's password is derived for; another purpose would give another password.
_JUDGE_PURPOSE: Final = b"heliograph judge login"

#: The publication of a Supabase project, and ours beside it where the server attached to one.
SOURCE_PUBLICATION: Final = "supabase_realtime"
ATTACHED_PUBLICATION: Final = "heliograph"


def _secret(
    variable: str,
    meaning: str,
    parse: Callable[[str], Secret],
    *aliases: str,
    default_text: str | None = None,
) -> Setting:
    """Describe a setting that may never be shown."""
    return Setting(
        variable=variable,
        meaning=meaning,
        parse=parse,
        aliases=aliases,
        default_text=default_text,
        is_secret=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can say; the field's description is its entry in the reference."""

    database_url: Annotated[
        Secret | None,
        _secret(
            "DATABASE_URL",
            "PostgreSQL URL of the owner login: migrations, catalog, publication.",
            parse_postgres_url,
            default_text="the embedded PostgreSQL (`dev` only)",
        ),
    ] = None
    replication_url: Annotated[
        Secret | None,
        _secret(
            "HELIOGRAPH_REPLICATION_URL",
            "PostgreSQL URL for replication, where DATABASE_URL leads through a pooler: a direct"
            " connection of a login that may replicate.",
            parse_postgres_url,
            default_text="DATABASE_URL",
        ),
    ] = None
    judge_url: Annotated[
        Secret | None,
        _secret(
            "HELIOGRAPH_JUDGE_URL",
            "PostgreSQL URL of the login that judges row versions; it can become the roles of"
            " tokens and nothing else.",
            parse_postgres_url,
            default_text=f"role {JUDGE_LOGIN} on DATABASE_URL's server",
        ),
    ] = None
    jwt_secret: Annotated[
        Secret | None,
        _secret(
            "HELIOGRAPH_JWT_SECRET",
            f"Secret of HS256 tokens, at least {limits.JWT_SECRET_BYTES_MIN} bytes.",
            parse_hmac_secret,
            "SUPABASE_JWT_SECRET",
            default_text="generated (`dev` only)",
        ),
    ] = None
    jwks: Annotated[
        Secret | None,
        _secret("HELIOGRAPH_JWKS", "Keys that verify tokens, as JSON (RFC 7517).", parse_key_set),
    ] = None
    jwks_url: Annotated[
        str | None,
        Setting(
            variable="HELIOGRAPH_JWKS_URL",
            meaning="Address of the keys that verify tokens; https, or http on localhost.",
            parse=parse_key_set_url,
        ),
    ] = None
    public_url: Annotated[
        str | None,
        Setting(
            variable="SUPABASE_URL",
            meaning="Address by which clients reach this server, as given to `createClient`.",
            parse=parse_public_url,
        ),
    ] = None
    anon_key: Annotated[
        Secret | None,
        _secret(
            "SUPABASE_ANON_KEY",
            "Legacy API key of the role anon (a JWT).",
            legacy_key_parser("anon"),
            default_text="minted from the JWT secret",
        ),
    ] = None
    service_role_key: Annotated[
        Secret | None,
        _secret(
            "SUPABASE_SERVICE_ROLE_KEY",
            "Legacy API key of the role service_role (a JWT). It passes by every policy.",
            legacy_key_parser("service_role"),
            default_text="minted from the JWT secret",
        ),
    ] = None
    publishable_key: Annotated[
        Secret | None,
        _secret(
            "HELIOGRAPH_PUBLISHABLE_KEY",
            "API key for clients without a user: `sb_publishable_…`.",
            prefixed_key_parser("sb_publishable_"),
            "SUPABASE_PUBLISHABLE_KEY",
            default_text="generated (`dev` only)",
        ),
    ] = None
    secret_key: Annotated[
        Secret | None,
        _secret(
            "HELIOGRAPH_SECRET_KEY",
            "API key for servers: `sb_secret_…`. It passes by every policy.",
            prefixed_key_parser("sb_secret_"),
            "SUPABASE_SECRET_KEY",
            default_text="generated (`dev` only)",
        ),
    ] = None
    host: Annotated[
        str,
        Setting(
            variable="HELIOGRAPH_HOST",
            meaning="Interface to listen on.",
            parse=parse_host,
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Setting(variable="HELIOGRAPH_PORT", meaning="TCP port.", parse=integer_parser(1, 65_535)),
    ] = 8000
    allowed_origins: Annotated[
        tuple[str, ...] | None,
        Setting(
            variable="HELIOGRAPH_ALLOWED_ORIGINS",
            meaning="Web origins (scheme, host, port) that may connect, separated by commas. Empty:"
            " no browser. `serve` wants it said; `dev` allows pages of this machine.",
            parse=parse_origins,
            default_text="none (`dev`: localhost)",
            empty_is_value=True,
        ),
    ] = None
    role_claim: Annotated[
        str,
        Setting(
            variable="HELIOGRAPH_ROLE_CLAIM",
            meaning="Claim that names the database role.",
            parse=parse_name,
        ),
    ] = "role"
    roles: Annotated[
        tuple[str, ...],
        Setting(
            variable="HELIOGRAPH_ROLES",
            meaning="Database roles that tokens may name, separated by commas.",
            parse=parse_names,
        ),
    ] = ("anon", "authenticated", "service_role")
    jwt_claim_validators: Annotated[
        Mapping[str, object] | None,
        Setting(
            variable="HELIOGRAPH_JWT_CLAIM_VALIDATORS",
            meaning='Claims that every token must have with exactly these values: `{"aud": "shop"}`'
            " refuses what the same issuer signed for another audience. API keys that are JWTs must"
            " have them, too: minted ones do; a given one that does not is an error at the start,"
            " or a warning where a key of HELIOGRAPH_JWKS signed it. `role`, the role claim, `exp`"
            " and `iat` can not be among them: they differ from token to token.",
            parse=parse_claims,
        ),
    ] = None
    publication: Annotated[
        str | None,
        Setting(
            variable="HELIOGRAPH_PUBLICATION",
            meaning="Publication whose tables are served.",
            parse=parse_name,
            default_text=f"{SOURCE_PUBLICATION} (attached: {ATTACHED_PUBLICATION})",
        ),
    ] = None
    slot: Annotated[
        str,
        Setting(
            variable="HELIOGRAPH_SLOT",
            meaning="Replication slot to read from.",
            parse=parse_slot_name,
        ),
    ] = "heliograph"
    state_dir: Annotated[
        str | None,
        Setting(
            variable="HELIOGRAPH_STATE_DIR",
            meaning="Folder that outlives the server and says how far the slot was read; without it"
            " clients load anew after a restart. Never put it back from a backup.",
            parse=parse_folder,
            default_text="`heliograph-state` (`dev`: in its data folder)",
        ),
    ] = None
    attach: Annotated[
        Attach,
        Setting(
            variable="HELIOGRAPH_ATTACH",
            meaning="Whether the database is an existing Supabase project in which nothing foreign"
            " is altered: found out, `always` or `never`.",
            parse=choice_parser("auto", "always", "never"),
        ),
    ] = "auto"
    reader: Annotated[
        Reader,
        Setting(
            variable="HELIOGRAPH_READER",
            meaning="How changes are read: over a replication connection, by polling the slot"
            " through SQL (slower), or the first that works.",
            parse=choice_parser("auto", "streaming", "polling"),
        ),
    ] = "auto"
    allow_without_rls: Annotated[
        tuple[str, ...],
        Setting(
            variable="HELIOGRAPH_ALLOW_WITHOUT_RLS",
            meaning="Tables without row level security that are served to everybody with SELECT on"
            " them; `*` for all. Others are withheld.",
            parse=parse_table_names,
        ),
    ] = ()
    extensions: Annotated[
        tuple[str, ...],
        Setting(
            variable="HELIOGRAPH_EXTENSIONS",
            meaning="Extensions that the embedded PostgreSQL of `dev` must have, separated by"
            " commas. A new data folder is made with the first PostgreSQL of this machine that has"
            " all; what is lacking is named before anything starts. `CREATE EXTENSION` is yours.",
            parse=parse_extensions,
        ),
    ] = ()
    delete_visibility: Annotated[
        DeleteVisibility,
        Setting(
            variable="HELIOGRAPH_DELETE_VISIBILITY",
            meaning="Who is told of a DELETE: judged on the old row where there is one (auto),"
            " nobody without one (strict), or the key to every subscriber as Supabase does"
            " (compatible).",
            parse=member_parser(DeleteVisibility),
        ),
    ] = DeleteVisibility.AUTO
    leave_events: Annotated[
        LeaveEvents,
        Setting(
            variable="HELIOGRAPH_LEAVE_EVENTS",
            meaning="What a subscriber gets when a row leaves its view: a DELETE with the key, or"
            " nothing.",
            parse=member_parser(LeaveEvents),
        ),
    ] = LeaveEvents.DELETE
    log_level: Annotated[
        LogLevel,
        Setting(
            variable="HELIOGRAPH_LOG_LEVEL",
            meaning="Least severe log lines to write.",
            parse=choice_parser("debug", "info", "warning", "error"),
        ),
    ] = "info"
    log_format: Annotated[
        LogFormat,
        Setting(
            variable="HELIOGRAPH_LOG_FORMAT",
            meaning="Form of log lines: one JSON object each, or for reading in a terminal.",
            parse=choice_parser("json", "console"),
            default_text="json (`dev`: console)",
        ),
    ] = "json"
    bounds: Bounds = field(default_factory=Bounds)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read what is set; what is not keeps its default.

        Raises:
            ConfigurationError: If a variable is malformed; names all of them.
        """
        problems: dict[str, str] = {}
        settings = cls._read(environ, problems)
        raise_problems(problems.values())
        return settings

    @classmethod
    def for_serve(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings of a production server.

        Raises:
            ConfigurationError: If a variable is malformed, or one that production needs is
                missing; names all of them.
        """
        settings, problems, missing = cls.examine(environ)
        raise_problems([*problems.values(), *missing])
        return settings

    @classmethod
    def examine(cls, environ: Mapping[str, str]) -> "tuple[Settings, dict[str, str], list[str]]":
        """Read what can be read of a production server's settings; raises nothing.

        Returns:
            The settings, one line by field for each that is wrong, one for each that is missing.
        """
        problems: dict[str, str] = {}
        settings = cls._read(environ, problems)
        tried = {name for name in settings_of(cls) if getattr(settings, name) is not None}
        missing = missing_for_serve(tried | problems.keys())
        if settings.jwt_secret == PUBLISHED_SECRET:
            problems["jwt_secret"] = IS_PUBLISHED
        return settings, problems, missing

    @classmethod
    def for_dev(cls, environ: Mapping[str, str], secrets: DevelopmentSecrets) -> "Settings":
        """Read the settings of a development server; `secrets` fill what is not set.

        Raises:
            ConfigurationError: If a variable is malformed; names all of them.
        """
        settings = cls.from_environ(environ)
        return replace(
            settings,
            database_url=settings.database_url or secrets.database_url,
            jwt_secret=settings.jwt_secret or secrets.jwt_secret,
            publishable_key=settings.publishable_key or secrets.publishable_key,
            secret_key=settings.secret_key or secrets.secret_key,
            log_format=settings.log_format if "HELIOGRAPH_LOG_FORMAT" in environ else "console",
        )

    @property
    def judge_password(self) -> Secret | None:
        """Return the password of the derived judge login: hex HMAC-SHA256 of the JWT secret.

        None if there is no JWT secret; then HELIOGRAPH_JUDGE_URL must be set.
        """
        if self.jwt_secret is None:
            return None
        key = self.jwt_secret.reveal().encode()
        return Secret(hmac.new(key, _JUDGE_PURPOSE, hashlib.sha256).hexdigest())

    def url_for_administration(self) -> Secret:
        """Return the URL of the owner login.

        Raises:
            ConfigurationError: If DATABASE_URL is missing.
        """
        if self.database_url is None:
            message = "DATABASE_URL: missing"
            raise ConfigurationError(message)
        return self.database_url

    def url_for_replication(self) -> Secret:
        """Return the URL of the login that replicates.

        Raises:
            ConfigurationError: If neither it nor DATABASE_URL is set.
        """
        return self.replication_url or self.url_for_administration()

    def url_for_judging(self) -> Secret:
        """Return the URL of the login that judges: the given one, or the derived login's.

        Raises:
            ConfigurationError: If it can not be derived: no DATABASE_URL or no JWT secret.
        """
        if self.judge_url is not None:
            return self.judge_url
        password = self.judge_password
        if password is None:
            message = "HELIOGRAPH_JUDGE_URL: missing; without HELIOGRAPH_JWT_SECRET it is needed"
            raise ConfigurationError(message)
        return url_with_login(self.url_for_administration(), JUDGE_LOGIN, password)

    def publication_name(self, *, is_attached: bool) -> str:
        """Return the publication to use in an attached Supabase project, or in our own database."""
        return self.publication or (ATTACHED_PUBLICATION if is_attached else SOURCE_PUBLICATION)

    @classmethod
    def _read(cls, environ: Mapping[str, str], problems: dict[str, str]) -> "Settings":
        bounds = Bounds(**read_fields(Bounds, environ, problems))
        settings = cls(**read_fields(cls, environ, problems), bounds=bounds)
        problems.update(bounds.problems())
        problems.update(_impossible_claims(settings))
        problems.update(_bad_legacy_keys(settings))
        return settings


def _impossible_claims(settings: Settings) -> dict[str, str]:
    """Find a required claim that differs from token to token: not even ours could have it."""
    for name in settings.jwt_claim_validators or {}:
        if name in {"role", settings.role_claim, "exp", "iat"}:
            text = (
                f"HELIOGRAPH_JWT_CLAIM_VALIDATORS: `{name}` differs from token to token;"
                " HELIOGRAPH_ROLES says which roles are accepted"
            )
            return {"jwt_claim_validators": text}
    return {}


def _bad_legacy_keys(settings: Settings) -> dict[str, str]:
    """Find legacy keys that the server would not accept."""
    keys = (
        ("anon_key", "SUPABASE_ANON_KEY", settings.anon_key),
        ("service_role_key", "SUPABASE_SERVICE_ROLE_KEY", settings.service_role_key),
    )
    found: dict[str, str] = {}
    for name, variable, key in keys:
        problem = None if key is None else _problem_of_key(key, settings)
        if problem is not None:
            found[name] = f"{variable}: {problem}"
    return found


def _problem_of_key(key: Secret, settings: Settings) -> str | None:
    if settings.jwt_secret is None:
        return None
    if not is_signed(key, settings.jwt_secret):
        # With a JWKS it may be signed by one of its keys.
        has_other_keys = settings.jwks is not None or settings.jwks_url is not None
        return None if has_other_keys else "is not signed with HELIOGRAPH_JWT_SECRET"
    remedy = "unset it, and `heliograph keys` prints one that is accepted"
    if has_expired(key):
        return f"has expired, so every use of it would be refused; {remedy}"
    claim = lacking_claim(key, settings.jwt_claim_validators or {})
    if claim is None:
        return None
    return (
        f"its claim `{claim}` is not what HELIOGRAPH_JWT_CLAIM_VALIDATORS asks for, so every use of"
        f" it would be refused; {remedy}"
    )
