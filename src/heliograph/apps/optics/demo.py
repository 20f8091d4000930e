"""Loads the demo shop: tables, access rules, business functions and invented content.

The SQL stands in ``sql/``. Everything happens in one transaction, so a database holds the whole
demo or nothing of it. The base migrations must have run: this needs the roles, ``auth.users``
and the publication ``supabase_realtime``.

The demo is for databases of its own. It refuses where tables of its names belong to somebody
else, and where its tables hold organizations that are not marked ``{"is_demo": true}``.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, cast

from heliograph.errors import ConfigurationError
from heliograph.ports.sql_session import SqlSession

#: The demo's one table without row level security: the same for everybody, readable by ``anon``.
#: Whoever serves the demo lists it in ``allow_without_rls``.
ALLOW_WITHOUT_RLS: Final = ("public.categories",)

_TABLES: Final = (
    "organizations",
    "branches",
    "admin_users",
    "admin_branch_access",
    "categories",
    "products",
    "product_branch_stock",
    "customers",
    "orders",
    "order_items",
)
_SCHEMA_FILES: Final = ("schema.sql", "access.sql", "business.sql")
_ALL_FILES: Final = (*_SCHEMA_FILES, "seed.sql", "reset.sql", "drop.sql")

_BASE_IS_MISSING: Final = """
select to_regclass('auth.users') is null
    or not exists (select from pg_publication where pubname = 'supabase_realtime') as missing
"""
_TABLES_PRESENT: Final = """
select relation.relname::text as name
from pg_catalog.pg_class as relation
where relation.relnamespace = 'public'::regnamespace and relation.relname = any(%s::text[])
order by 1
"""
_FOREIGN_ORGANIZATIONS: Final = """
select count(*) as number from public.organizations where not metadata @> '{"is_demo": true}'
"""
# The operator works for no shop: no branches are listed, although nothing is hidden from it.
_ACCOUNTS: Final = """
select
    staff.id::text as user_id, staff.email, staff.full_name, staff.role,
    organization.name as organization,
    case when organization.id is not null then array(
        select branch.branch_name from public.get_user_branches(staff.id) as branch
    ) else '{}' end as branches
from public.admin_users as staff
left join public.organizations as organization on organization.id = staff.organization_id
where staff.is_active
    and staff.id::text like '12000000-0000-4000-8000-%'
order by staff.id
"""


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """Somebody to look at the demo as.

    Attributes:
        user_id: The id in ``auth.users``, a UUID in canonical text.
        email: What `heliograph tail --as` takes.
        role: ``root``, ``dev``, ``super_admin``, ``admin``, ``employee`` or ``vendedor``.
        organization: Name; None for the operator.
        branches: Names of the branches whose rows the account sees, the primary one first; empty
            for the operator, who sees all of every organization.
    """

    user_id: str
    email: str
    full_name: str
    role: str
    organization: str | None
    branches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What `load_demo` found or made.

    Attributes:
        is_new: Whether the tables were made by this call.
        accounts: Sorted as the seed has them: operator, then organization by organization.
    """

    is_new: bool
    accounts: tuple[DemoAccount, ...]


async def load_demo(session: SqlSession, *, force: bool = False) -> DemoReport:
    """Make the demo's tables if they are missing, insert content that is missing, report.

    Idempotent: run twice, nothing is doubled, and what visitors or the simulator changed stays.
    Tables made by another version of Heliograph are replaced, unless they hold more than the
    demo. Atomic: all of it or nothing.

    Args:
        session: A session of the owner of schema ``public``, outside any transaction.
        force: Load even though organizations that are not the demo's are there.

    Raises:
        ConfigurationError: If the base migrations have not run, if the names are taken by tables
            of somebody else, or if other organizations are there and ``force`` is not given.
        UnavailableError: If the database does not answer.
        StorageError: If PostgreSQL refuses a statement.
    """
    async with session.transaction():
        is_new = await _make_tables(session, force=force)
        await session.execute(_read_sql("seed.sql"))
        return DemoReport(is_new=is_new, accounts=await _read_accounts(session))


async def reset_demo(session: SqlSession, *, force: bool = False) -> DemoReport:
    """Put the demo back to its first day; rows of organizations that are not its own stay.

    Takes and raises the same as `load_demo`.
    """
    async with session.transaction():
        is_new = await _make_tables(session, force=force)
        await session.execute(_read_sql("reset.sql"))
        await session.execute(_read_sql("seed.sql"))
        return DemoReport(is_new=is_new, accounts=await _read_accounts(session))


async def _make_tables(session: SqlSession, *, force: bool) -> bool:
    """Make or replace the tables if need be; return whether this call made them."""
    # Two servers that start at once must not both find the tables missing.
    await session.execute("select pg_advisory_xact_lock(hashtext('heliograph.apps.optics'))")
    installed = await _read_fingerprint(session)
    current = _fingerprint()
    if installed is None:
        await _require_free_names(session)
    else:
        await _require_only_demo(session, force=force and installed == current)
    if installed == current:
        return False
    if installed is not None:
        await session.execute(_read_sql("drop.sql"))
    for name in _SCHEMA_FILES:
        await session.execute(_read_sql(name))
    await session.execute("insert into optics.installation (fingerprint) values (%s)", (current,))
    return True


async def _read_fingerprint(session: SqlSession) -> str | None:
    [row] = await session.execute("select to_regclass('optics.installation') is null as missing")
    if row["missing"]:
        return None
    [row] = await session.execute("select fingerprint from optics.installation")
    return str(row["fingerprint"])


async def _require_free_names(session: SqlSession) -> None:
    [row] = await session.execute(_BASE_IS_MISSING)
    if row["missing"]:
        message = (
            "the demo needs auth.users and the publication supabase_realtime;"
            " run `heliograph migrate` first"
        )
        raise ConfigurationError(message)
    taken = await session.execute(_TABLES_PRESENT, (list(_TABLES),))
    if taken:
        names = ", ".join(f"public.{row['name']}" for row in taken)
        message = f"the demo can not be loaded: {names} exist and are not the demo's"
        raise ConfigurationError(message)


async def _require_only_demo(session: SqlSession, *, force: bool) -> None:
    [row] = await session.execute(_FOREIGN_ORGANIZATIONS)
    if row["number"] and not force:
        message = (
            f"the database holds organizations that are not the demo's ({row['number']});"
            " use a database of its own for the demo"
        )
        raise ConfigurationError(message)


async def _read_accounts(session: SqlSession) -> tuple[DemoAccount, ...]:
    return tuple([_account(row) for row in await session.execute(_ACCOUNTS)])


def _account(row: Mapping[str, object]) -> DemoAccount:
    organization = row["organization"]
    return DemoAccount(
        user_id=str(row["user_id"]),
        email=str(row["email"]),
        full_name=str(row["full_name"]),
        role=str(row["role"]),
        organization=None if organization is None else str(organization),
        branches=tuple(cast("list[str]", row["branches"])),
    )


def _fingerprint() -> str:
    """Return what tells one version of the SQL files from another."""
    digest = hashlib.sha256()
    for name in _ALL_FILES:
        digest.update(_read_sql(name).encode())
    return digest.hexdigest()


def _read_sql(name: str) -> str:
    return files("heliograph.apps.optics").joinpath("sql", name).read_text(encoding="utf-8")
