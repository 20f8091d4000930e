"""The login role that judges: it can become the roles of tokens and nothing else.

A policy may call a function that tries ``set_config('role', …)`` (measured: it reached the login
role, visibility.md §4). So whatever the login may become, a policy may become. It therefore owns
nothing, inherits nothing, and is member of the roles that it must assume only. ``service_role``
is no such role while it passes row level security: then nothing has to be judged for it. Where it
does not (no superuser was there to give BYPASSRLS), a second login judges for it alone.

Only a SCRAM verifier of the password is sent: the server's log never holds the password.
Source: https://www.postgresql.org/docs/current/sql-createrole.html
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from heliograph import limits
from heliograph.config import JUDGE_LOGIN
from heliograph.core.channels.bearer import SERVICE_ROLE
from heliograph.errors import ConfigurationError, StorageError, UnavailableError

SERVICE_JUDGE_LOGIN: Final = "heliograph_service_judge"

#: From this version on a membership says itself whether it inherits.
_MEMBERSHIP_OPTIONS_VERSION: Final = 160000

_ATTRIBUTES: Final[sql.SQL] = sql.SQL(
    "login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls"
)

_ROLES: Final = """
select r.rolname as name, r.rolsuper as is_superuser, r.rolbypassrls as has_bypassrls
  from pg_catalog.pg_roles r where r.rolname = any(%s)
"""

_LOGIN: Final = """
select r.rolcanlogin as may_login, r.rolinherit as inherits, r.rolsuper as is_superuser,
       r.rolbypassrls as has_bypassrls, r.rolreplication as may_replicate,
       r.rolcreaterole as may_create_roles, r.rolcreatedb as may_create_databases,
       coalesce((select pg_catalog.array_agg(g.rolname::text order by g.rolname)
                   from pg_catalog.pg_auth_members m
                   join pg_catalog.pg_roles g on g.oid = m.roleid
                  where m.member = r.oid), '{}') as direct,
       coalesce((select pg_catalog.array_agg(o.rolname::text order by o.rolname)
                   from pg_catalog.pg_roles o
                  where o.oid <> r.oid and pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')), '{}')
         as reachable,
       coalesce((select pg_catalog.array_agg(g.rolname::text order by g.rolname)
                   from pg_catalog.pg_auth_members m
                   join pg_catalog.pg_roles g on g.oid = m.roleid
                  where m.member = r.oid and m.admin_option), '{}') as administered,
       exists (select from pg_catalog.pg_shdepend d
                where d.refclassid = 'pg_catalog.pg_authid'::regclass and d.refobjid = r.oid
                  and d.deptype = 'o') as owns_objects,
       pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT')
         as may_connect
  from pg_catalog.pg_roles r where r.rolname = %s
"""


@dataclass(frozen=True, slots=True)
class JudgeLogin:
    """How to connect in order to judge.

    Attributes:
        user: The login role.
        roles: The roles that it may assume, and no others.
        conninfo: libpq connection string with the password: never to be logged.
    """

    user: str
    roles: tuple[str, ...]
    conninfo: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class JudgeLogins:
    """The logins of one database.

    Attributes:
        judge: For ``anon``, ``authenticated`` and roles of your own.
        service: For ``service_role`` where it does not pass row level security, else None.
    """

    judge: JudgeLogin
    service: JudgeLogin | None


async def ensure_judge_login(
    connection: AsyncConnection[Any], password: str, roles: Sequence[str], *, suffix: str = ""
) -> JudgeLogins:
    """Make the judging logins, or correct them, and verify that they can become nothing else.

    Idempotent. Roles belong to the cluster: two databases of one cluster that are served with
    different passwords need different suffixes.

    Args:
        connection: An autocommit connection of a superuser or of a role with CREATEROLE that may
            grant the roles. With less, logins that exist already are verified and used.
        password: The logins' password, the same for both. All server processes of a database must
            give the same one (`Settings.judge_password`), or they lock each other out.
        roles: The roles to assume; ``service_role`` may be among them, see the module.
        suffix: Appended to the logins' names.

    Raises:
        ConfigurationError: If a role does not exist or passes row level security, if a login can
            become more than it should, or may not be made; the message says what to run.
        UnavailableError: If PostgreSQL does not answer.
        StorageError: If it refused for another reason.
    """
    try:
        async with asyncio.timeout(limits.MIGRATION_TIMEOUT_S):
            assumed, judges_service = await _read_roles(connection, roles)
            judge = await _ensure(connection, JUDGE_LOGIN + suffix, password, assumed)
            if not judges_service:
                return JudgeLogins(judge, None)
            service = await _ensure(
                connection, SERVICE_JUDGE_LOGIN + suffix, password, (SERVICE_ROLE,)
            )
            return JudgeLogins(judge, service)
    except TimeoutError as error:
        message = "PostgreSQL does not answer"
        raise UnavailableError(message) from error
    except psycopg.Error as error:
        message = f"the judging login could not be made ({error.sqlstate})"
        raise StorageError(message) from error


async def require_safe_login(connection: AsyncConnection[Any], roles: Sequence[str]) -> bool:
    """Verify that the login of a connection, which somebody else made, may judge.

    Args:
        connection: Of the login itself.
        roles: The roles that tokens may name.

    Returns:
        Whether ``service_role`` is among them and would have to be judged, by another login.

    Raises:
        ConfigurationError: If the login can become more than the others of these roles, or less;
            or if one of them passes row level security.
    """
    assumed, judges_service = await _read_roles(connection, roles)
    cursor = await connection.execute("select session_user::text")
    row = await cursor.fetchone()
    user = "" if row is None else str(row[0])
    findings = await verify_judge_login(connection, user, assumed)
    if findings:
        message = f"HELIOGRAPH_JUDGE_URL: the login must not judge: {'; '.join(findings)}"
        raise ConfigurationError(message)
    return judges_service


async def verify_judge_login(
    connection: AsyncConnection[Any], user: str, roles: Sequence[str]
) -> tuple[str, ...]:
    """Return what is wrong with a judging login; empty if it can become ``roles`` and nothing else.

    Memberships are followed to the end: a role that one of ``roles`` may become must be among
    ``roles`` too.

    Args:
        connection: Any connection to the database.
        user: The login role.
        roles: What it may become.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_LOGIN, (user,))
        row = await cursor.fetchone()
    if row is None:
        return (f"role {user} does not exist",)
    findings = [
        f"role {user} {text}"
        for column, text in (
            ("inherits", "inherits rights: ALTER ROLE … NOINHERIT"),
            ("is_superuser", "is a superuser"),
            ("has_bypassrls", "passes row level security"),
            ("may_replicate", "may read replication slots"),
            ("may_create_roles", "may create roles"),
            ("may_create_databases", "may create databases"),
            ("owns_objects", "owns objects, and owners pass row level security"),
        )
        if row[column]
    ]
    if not row["may_login"]:
        findings.append(f"role {user} may not log in")
    if not row["may_connect"]:
        findings.append(f"role {user} may not connect to this database")
    if not row["is_superuser"]:
        findings.extend(
            f"role {user} can become {name}" for name in row["reachable"] if name not in roles
        )
    findings.extend(f"role {user} may grant {name} to others" for name in row["administered"])
    findings.extend(
        f"role {user} is no member of {name}" for name in roles if name not in row["direct"]
    )
    return tuple(findings)


async def _read_roles(
    connection: AsyncConnection[Any], roles: Sequence[str]
) -> tuple[tuple[str, ...], bool]:
    """Return the roles for the first login, and whether the second one is needed."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ROLES, (list(roles),))
        found = {row["name"]: row for row in await cursor.fetchall()}
    for name in roles:
        if name not in found:
            message = f"role {name} does not exist: run `heliograph migrate` or create it"
            raise ConfigurationError(message)
        if name != SERVICE_ROLE and (found[name]["is_superuser"] or found[name]["has_bypassrls"]):
            message = f"role {name} passes row level security; tokens must not name it"
            raise ConfigurationError(message)
    assumed = tuple(dict.fromkeys(name for name in roles if name != SERVICE_ROLE))
    service = found.get(SERVICE_ROLE)
    judges_service = service is not None and not (
        service["is_superuser"] or service["has_bypassrls"]
    )
    return assumed, judges_service


async def _ensure(
    connection: AsyncConnection[Any], user: str, password: str, roles: tuple[str, ...]
) -> JudgeLogin:
    login = JudgeLogin(user, roles, _conninfo(connection, user, password))
    for attempt in range(limits.MIGRATION_ATTEMPTS_MAX):
        try:
            async with connection.transaction():
                await _make(connection, user, password, roles)
            break
        except psycopg.errors.InsufficientPrivilege as error:
            await _require(connection, user, roles, cause=error)
            return login
        except (psycopg.errors.InternalError_, psycopg.errors.UniqueViolation):
            # "tuple concurrently updated": another server process makes the same role now.
            if attempt + 1 == limits.MIGRATION_ATTEMPTS_MAX:
                raise
    await _require(connection, user, roles, cause=None)
    return login


async def _make(
    connection: AsyncConnection[Any], user: str, password: str, roles: tuple[str, ...]
) -> None:
    name = sql.Identifier(user)
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_LOGIN, (user,))
        row = await cursor.fetchone()
    if row is None:
        await connection.execute(sql.SQL("create role {} ").format(name) + _ATTRIBUTES)
    elif _has_other_attributes(row):
        await connection.execute(sql.SQL("alter role {} ").format(name) + _ATTRIBUTES)
    verifier = connection.pgconn.encrypt_password(
        password.encode(), user.encode(), b"scram-sha-256"
    ).decode()
    await connection.execute(
        sql.SQL("alter role {} connection limit {} password {}").format(
            name, sql.Literal(limits.JUDGE_LOGIN_CONNECTIONS_MAX), sql.Literal(verifier)
        )
    )
    # It judges inside READ ONLY transactions anyway; this is the second bolt.
    await connection.execute(
        sql.SQL("alter role {} set default_transaction_read_only = on").format(name)
    )
    direct: list[str] = row["direct"] if row is not None else []
    for role in direct:
        if role not in roles:
            await connection.execute(
                sql.SQL("revoke {} from {}").format(sql.Identifier(role), name)
            )
    suffix = (
        sql.SQL(" with inherit false, set true")
        if connection.info.server_version >= _MEMBERSHIP_OPTIONS_VERSION
        else sql.SQL("")
    )
    for role in roles:
        if role not in direct:
            await connection.execute(
                sql.SQL("grant {} to {}").format(sql.Identifier(role), name) + suffix
            )
    if row is None or not row["may_connect"]:
        await _grant_connect(connection, user)


async def _grant_connect(connection: AsyncConnection[Any], user: str) -> None:
    """PUBLIC may connect to a database unless its owner took that away."""
    cursor = await connection.execute(
        "select pg_catalog.has_database_privilege(%s::text, current_database(), 'CONNECT')", (user,)
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        await connection.execute(
            sql.SQL("grant connect on database {} to {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(user)
            )
        )


def _has_other_attributes(row: dict[str, Any]) -> bool:
    forbidden = (
        "inherits",
        "is_superuser",
        "has_bypassrls",
        "may_replicate",
        "may_create_roles",
        "may_create_databases",
    )
    return not row["may_login"] or any(row[column] for column in forbidden)


async def _require(
    connection: AsyncConnection[Any],
    user: str,
    roles: tuple[str, ...],
    *,
    cause: psycopg.Error | None,
) -> None:
    findings = await verify_judge_login(connection, user, roles)
    if not findings:
        return
    if cause is None:
        message = f"the judging login is not safe: {'; '.join(findings)}"
        raise ConfigurationError(message)
    message = (
        f"{connection.info.user} may not make the judging login {user} "
        f"({cause.diag.message_primary}). Run as a role that may: CREATE ROLE {user} LOGIN "
        f"NOINHERIT PASSWORD '…'; GRANT {', '.join(roles)} TO {user}; and give the server that "
        "password"
    )
    raise ConfigurationError(message) from cause


def _conninfo(connection: AsyncConnection[Any], user: str, password: str) -> str:
    parameters = connection.info.get_parameters()
    # `options` may set a role or settings for the connection that makes logins; not for judging.
    for name in ("options", "passfile", "service", "replication", "application_name"):
        parameters.pop(name, None)
    parameters.update({"user": user, "password": password})
    return make_conninfo("", **parameters)
