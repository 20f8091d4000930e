"""What the connected role may do in this database, and which roles exist.

PostgreSQL 15: CREATEROLE may create and grant every role that is no superuser; BYPASSRLS is for
superusers to give. From 16 on, CREATEROLE works only on roles that one holds with ADMIN OPTION
(the creator gets it), and gives BYPASSRLS and REPLICATION only if it has them itself.
Source: https://www.postgresql.org/docs/current/role-attributes.html
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from heliograph.errors import StorageError

#: The roles that tokens name.
TOKEN_ROLES: Final = ("anon", "authenticated", "service_role")

#: All roles that a fresh database gets.
STANDARD_ROLES: Final = (*TOKEN_ROLES, "authenticator")

_CREATEROLE_NEEDS_ADMIN_VERSION: Final = 160000

_SELF: Final = """
select current_user as user_name, pg_catalog.current_database() as database_name,
       pg_catalog.current_setting('server_version_num')::int as version,
       r.rolsuper as is_superuser, r.rolcreaterole as has_createrole,
       r.rolbypassrls as has_bypassrls, r.rolreplication as has_replication,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') as may_create,
       coalesce((select pg_catalog.bool_or(pg_catalog.pg_has_role(current_user, g.oid, 'USAGE'))
                   from pg_catalog.pg_roles g where g.rolname in ('rds_replication')), false)
         as has_host_replication
  from pg_catalog.pg_roles r where r.rolname = current_user
"""

_ROLES: Final = """
select r.rolname as name, r.rolsuper as is_superuser, r.rolbypassrls as has_bypassrls,
       pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION') as has_admin,
       coalesce(pg_catalog.pg_has_role(a.oid, r.oid, 'MEMBER'), false) as authenticator_is_member
  from pg_catalog.pg_roles r
  left join pg_catalog.pg_roles a on a.rolname = 'authenticator'
 where r.rolname = any(%s)
"""


@dataclass(frozen=True, slots=True)
class RoleRights:
    """One of the standard roles as it exists.

    Attributes:
        is_superuser: SUPERUSER; such a role must never be named by a token.
        has_bypassrls: BYPASSRLS.
        may_be_granted: Whether the connected role may grant it to others.
        authenticator_is_member: Whether ``authenticator`` may become it.
    """

    is_superuser: bool
    has_bypassrls: bool
    may_be_granted: bool
    authenticator_is_member: bool


@dataclass(frozen=True, slots=True)
class DatabaseRights:
    """What the connected role may do.

    Attributes:
        user_name: The connected role.
        database_name: The connected database.
        version: ``server_version_num``.
        is_superuser: SUPERUSER.
        has_createrole: CREATEROLE.
        has_bypassrls: BYPASSRLS.
        may_replicate: REPLICATION, SUPERUSER, or the host's role for it.
        may_create: CREATE on the database.
        roles: The standard roles that exist, by name.
    """

    user_name: str
    database_name: str
    version: int
    is_superuser: bool
    has_createrole: bool
    has_bypassrls: bool
    may_replicate: bool
    may_create: bool
    roles: Mapping[str, RoleRights]

    def missing_roles(self) -> tuple[str, ...]:
        """Return the standard roles that do not exist."""
        return tuple(name for name in STANDARD_ROLES if name not in self.roles)

    def lacks(self, requirement: str) -> str | None:
        """Say what is missing for a requirement of a migration; None if nothing is.

        Args:
            requirement: ``superuser``, ``create_in_database``, ``roles``, ``grant_memberships``
                or ``grant_bypassrls``.
        """
        match requirement:
            case "superuser":
                return None if self.is_superuser else f"{self.user_name} is no superuser"
            case "create_in_database":
                return None if self.may_create else f"{self.user_name} may not CREATE here"
            case "roles":
                return self._lacks_roles()
            case "grant_memberships":
                return self._lacks_memberships()
            case "grant_bypassrls":
                return self._lacks_bypassrls()
            case _:
                return f"requirement {requirement!r} is unknown to this version"

    def holds(self, state: str) -> bool:
        """Tell whether a state that a migration ensures is there: see `Migration.ensures`."""
        match state:
            case "roles":
                return not self.missing_roles()
            case "memberships":
                return all(
                    name in self.roles and self.roles[name].authenticator_is_member
                    for name in TOKEN_ROLES
                )
            case "bypassrls":
                return "service_role" in self.roles and self.roles["service_role"].has_bypassrls
            case _:
                return True

    def _lacks_roles(self) -> str | None:
        missing = self.missing_roles()
        if not missing or self.is_superuser or self.has_createrole:
            return None
        return f"{', '.join(missing)} do not exist and {self.user_name} has no CREATEROLE"

    def _lacks_memberships(self) -> str | None:
        refused = [
            name
            for name in TOKEN_ROLES
            if name in self.roles
            and not self.roles[name].authenticator_is_member
            and not self.roles[name].may_be_granted
        ]
        if not refused:
            return None
        return f"{self.user_name} may not grant {', '.join(refused)}"

    def _lacks_bypassrls(self) -> str | None:
        service = self.roles.get("service_role")
        if self.is_superuser or (service is not None and service.has_bypassrls):
            return None
        if self.version < _CREATEROLE_NEEDS_ADMIN_VERSION:
            return "PostgreSQL 15 lets only superusers give BYPASSRLS"
        if (
            self.has_createrole
            and self.has_bypassrls
            and (service is None or service.may_be_granted)
        ):
            return None
        return f"{self.user_name} has no BYPASSRLS to give, or no ADMIN OPTION on service_role"


async def read_rights(connection: AsyncConnection[Any]) -> DatabaseRights:
    """Ask the catalog what the connected role may do; reads only."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SELF)
        row = await cursor.fetchone()
        if row is None:
            message = "the catalog has no row for the connected role"
            raise StorageError(message)
        await cursor.execute(_ROLES, (list(STANDARD_ROLES),))
        role_rows = await cursor.fetchall()
    grants_any_role = row["is_superuser"] or (
        row["has_createrole"] and row["version"] < _CREATEROLE_NEEDS_ADMIN_VERSION
    )
    roles = {
        role["name"]: RoleRights(
            is_superuser=role["is_superuser"],
            has_bypassrls=role["has_bypassrls"],
            may_be_granted=role["has_admin"]
            or (grants_any_role and (row["is_superuser"] or not role["is_superuser"])),
            authenticator_is_member=role["authenticator_is_member"],
        )
        for role in role_rows
    }
    return DatabaseRights(
        user_name=row["user_name"],
        database_name=row["database_name"],
        version=row["version"],
        is_superuser=row["is_superuser"],
        has_createrole=row["has_createrole"],
        has_bypassrls=row["has_bypassrls"],
        may_replicate=row["is_superuser"] or row["has_replication"] or row["has_host_replication"],
        may_create=row["may_create"],
        roles=roles,
    )


async def existing_roles(connection: AsyncConnection[Any], names: Collection[str]) -> set[str]:
    """Return which of these roles exist; reads only."""
    cursor = await connection.execute(
        "select r.rolname::text from pg_catalog.pg_roles r where r.rolname = any(%s)",
        (list(names),),
    )
    return {str(row[0]) for row in await cursor.fetchall()}
