"""Who sees what in the demo: account x table, against expectations written down by hand.

Every account asks every table as PostgreSQL sees it from outside (role authenticated with the
account's claims). What it may get is computed from `_BRANCHES_OF`, not from the functions under
test.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

pytestmark = pytest.mark.postgres

_ALL_BRANCHES = {1001, 1002, 2001, 3001}
#: Number of the account, role, number of its organization, numbers of the branches it sees.
_ACCOUNTS = {
    "root": (1, "root", None, _ALL_BRANCHES),
    "dev": (2, "dev", None, _ALL_BRANCHES),
    "super admin of A": (1001, "super_admin", 1, {1001, 1002}),
    "admin of both branches": (1002, "admin", 1, {1001, 1002}),
    "admin of the second": (1003, "admin", 1, {1002}),
    "employee": (1004, "employee", 1, {1001}),
    "vendedor": (1005, "vendedor", 1, {1002}),
    "super admin of B": (2001, "super_admin", 2, {2001}),
    "vendedor of B": (2002, "vendedor", 2, {2001}),
    "super admin of C": (3001, "super_admin", 3, {3001}),
    "vendedor of C": (3002, "vendedor", 3, {3001}),
}
_BRANCH_TABLES = ("product_branch_stock", "customers", "orders", "order_items")
_TABLES = (
    *_BRANCH_TABLES,
    *("organizations", "branches", "products", "admin_users", "admin_branch_access", "categories"),
)
_FUNCTIONS = (
    *("is_admin(%s)", "get_admin_role(%s)", "get_user_organization_id(%s)", "is_root_user(%s)"),
    *("is_employee(%s)", "is_super_admin(%s)", "get_user_branches(%s)"),
    "can_access_branch(%s, null)",
)

Connection = psycopg.Connection[tuple[object, ...]]


def demo_id(prefix: int, number: int) -> str:
    return f"{prefix}-0000-4000-8000-{number:012d}"


def user_id(account: str) -> str:
    return demo_id(12000000, _ACCOUNTS[account][0])


@contextmanager
def sign_in(connection: Connection, role: str, subject: str | None) -> Iterator[None]:
    """Be that role with those claims inside the block; everything is rolled back after it."""
    with connection.transaction(force_rollback=True):
        claims = Jsonb({"sub": subject, "role": role})
        connection.execute("select set_config('request.jwt.claims', %s::text, true)", (claims,))
        connection.execute("select set_config('role', %s, true)", (role,))
        yield


def rows_of(connection: Connection, table: str) -> list[str]:
    query = f"select to_jsonb(t)::text from public.{table} as t order by 1"
    return [str(row[0]) for row in connection.execute(query.encode())]


def rows_where(
    connection: Connection, table: str, condition: str, *parameters: object
) -> list[str]:
    query = f"select to_jsonb(t)::text from public.{table} as t where {condition} order by 1"
    return [str(row[0]) for row in connection.execute(query.encode(), parameters or None)]


def expected_rows(connection: Connection, account: str, table: str) -> list[str]:
    """Return what the account may see, asked as superuser."""
    _, role, organization, branches = _ACCOUNTS[account]
    if table == "categories" or role in {"root", "dev"}:
        return rows_of(connection, table)
    own_organization = demo_id(10000000, organization or 0)
    own_branches = [demo_id(11000000, branch) for branch in branches]
    if table in _BRANCH_TABLES:
        return rows_where(connection, table, "branch_id = any(%s::uuid[])", own_branches)
    if table == "branches":
        return rows_where(connection, table, "id = any(%s::uuid[])", own_branches)
    if table == "organizations":
        return rows_where(connection, table, "id = %s", own_organization)
    if table == "products" or role == "super_admin":
        return rows_where(connection, table, "organization_id = %s", own_organization)
    own_column = "id" if table == "admin_users" else "admin_user_id"
    return rows_where(connection, table, f"{own_column} = %s", user_id(account))


@pytest.fixture
def connection(shared_demo_url: str) -> Iterator[Connection]:
    """A superuser's connection; what a test writes is rolled back."""
    with psycopg.connect(shared_demo_url) as opened:
        yield opened
        opened.rollback()


@pytest.mark.parametrize("table", _TABLES)
@pytest.mark.parametrize("account", _ACCOUNTS)
def test_an_account_sees_its_rows_and_no_others(connection, account, table):
    expected = expected_rows(connection, account, table)
    with sign_in(connection, "authenticated", user_id(account)):
        assert rows_of(connection, table) == expected


@pytest.mark.parametrize("table", _TABLES)
def test_the_matrix_has_rows_to_hide(connection, table):
    """Without rows of three organizations the test above would prove nothing."""
    column = {"organizations": "id", "categories": "id"}.get(table, "organization_id")
    query = f"select count(distinct {column}) from public.{table}"
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    assert row[0] >= (2 if table == "customers" else 3)


@pytest.mark.parametrize("table", [table for table in _TABLES if table != "categories"])
def test_who_is_no_staff_sees_nothing(connection, table):
    with sign_in(connection, "authenticated", "99999999-0000-4000-8000-000000000001"):
        assert rows_of(connection, table) == []
    with sign_in(connection, "authenticated", None):
        assert rows_of(connection, table) == []


@pytest.mark.parametrize("table", [table for table in _TABLES if table != "categories"])
def test_anon_may_not_even_ask(connection, table):
    with sign_in(connection, "anon", None), pytest.raises(errors.InsufficientPrivilege):
        rows_of(connection, table)


def test_anon_reads_the_categories(connection):
    with sign_in(connection, "anon", None):
        assert len(rows_of(connection, "categories")) == 4


@pytest.mark.parametrize("table", _TABLES)
def test_service_role_sees_everything_even_without_bypassrls(connection, table):
    expected = rows_of(connection, table)
    with sign_in(connection, "service_role", None):
        assert rows_of(connection, table) == expected
    with connection.transaction(force_rollback=True):
        connection.execute("alter role service_role nobypassrls")
        with sign_in(connection, "service_role", None):
            assert rows_of(connection, table) == expected


@pytest.mark.parametrize("table", _TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "insert into public.{} default values",
        "update public.{} set id = id",
        "delete from public.{}",
        "truncate public.{} cascade",
    ],
    ids=["insert", "update", "delete", "truncate"],
)
def test_nobody_writes_through_the_roles_of_tokens(connection, table, statement):
    statement = statement.format(table)
    if table == "product_branch_stock":
        statement = statement.replace("id = id", "quantity = 0")
    for role in ("anon", "authenticated"):
        for account in _ACCOUNTS:
            with (
                sign_in(connection, role, user_id(account)),
                pytest.raises(errors.InsufficientPrivilege),
            ):
                connection.execute(statement.encode())


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_access_functions_are_for_staff_and_the_service_not_for_anon(connection, function):
    query = f"select public.{function}".encode()
    for role in ("authenticated", "service_role"):
        with sign_in(connection, role, user_id("employee")):
            connection.execute(query, (user_id("employee"),))
    with sign_in(connection, "anon", None), pytest.raises(errors.InsufficientPrivilege):
        connection.execute(query, (user_id("employee"),))


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_access_functions_are_stable_definer_functions_with_a_fixed_search_path(
    connection, function
):
    row = connection.execute(
        "select provolatile, prosecdef, proconfig from pg_proc"
        " where pronamespace = 'public'::regnamespace and proname = %s",
        (function.split("(")[0],),
    ).fetchone()
    assert row == ("s", True, ['search_path=""'])


def test_business_functions_are_out_of_reach(connection):
    query = b"select optics.advance_order(optics.demo_id('40000000', 2))"
    for role in ("anon", "authenticated"):
        with sign_in(connection, role, None), pytest.raises(errors.InsufficientPrivilege):
            connection.execute(query)


@pytest.mark.parametrize("account", _ACCOUNTS)
def test_access_functions_agree_with_the_table_of_accounts(connection, account):
    _, role, organization, branches = _ACCOUNTS[account]
    is_operator = role in {"root", "dev"}
    row = connection.execute(
        "select is_admin(u), get_admin_role(u), get_user_organization_id(u)::text,"
        " is_root_user(u), is_employee(u), is_super_admin(u), can_access_branch(u, null)"
        " from (select %s::uuid as u) as given",
        (user_id(account),),
    ).fetchone()
    assert row == (
        True,
        role,
        None if organization is None else demo_id(10000000, organization),
        is_operator,
        role in {"employee", "vendedor"},
        is_operator or role == "super_admin",
        is_operator,
    )
    for branch in _ALL_BRANCHES:
        answer = connection.execute(
            "select can_access_branch(%s, %s)", (user_id(account), demo_id(11000000, branch))
        ).fetchone()
        assert answer == (branch in branches,)
    listed = connection.execute(
        "select branch_id::text from get_user_branches(%s)", (user_id(account),)
    ).fetchall()
    assert {row[0] for row in listed} == {demo_id(11000000, branch) for branch in branches}


def test_branches_are_listed_primary_first_with_the_role_of_the_access_row(connection):
    query = "select branch_name, branch_code, role, is_primary from get_user_branches(%s)"
    connection.execute("update admin_branch_access set is_primary = not is_primary")
    assert connection.execute(query, (user_id("admin of both branches"),)).fetchall() == [
        ("Sucursal Norte", "NORTE", "manager", True),
        ("Casa Matriz", "MATRIZ", "manager", False),
    ]
    assert connection.execute(query, (user_id("super admin of A"),)).fetchall() == [
        ("Casa Matriz", "MATRIZ", "super_admin", False),
        ("Sucursal Norte", "NORTE", "super_admin", False),
    ]
    assert {row[2] for row in connection.execute(query, (user_id("dev"),))} == {"root"}


@pytest.mark.parametrize("account", _ACCOUNTS)
def test_staff_that_is_switched_off_loses_everything(connection, account):
    connection.execute(
        "update admin_users set is_active = false where id = %s", (user_id(account),)
    )
    with sign_in(connection, "authenticated", user_id(account)):
        for table in _TABLES:
            if table != "categories":
                assert rows_of(connection, table) == []
        row = connection.execute(
            "select is_admin(u), is_super_admin(u), can_access_branch(u, %s),"
            " (select count(*) from get_user_branches(u)) from (select %s::uuid as u) as given",
            (demo_id(11000000, 1001), user_id(account)),
        ).fetchone()
    assert row == (False, False, False, 0)


def test_an_access_row_without_a_branch_opens_the_own_organization_and_no_other(connection):
    connection.execute(
        "insert into admin_branch_access (admin_user_id, organization_id) values (%s, %s)",
        (user_id("vendedor"), demo_id(10000000, 1)),
    )
    with sign_in(connection, "authenticated", user_id("vendedor")):
        rows = connection.execute("select distinct branch_id::text from orders").fetchall()
        assert connection.execute("select is_super_admin(auth.uid())").fetchone() == (True,)
    assert {row[0] for row in rows} == {demo_id(11000000, 1001), demo_id(11000000, 1002)}


def test_an_inactive_branch_is_closed_for_staff_and_open_for_the_super_admin(connection):
    branch = demo_id(11000000, 1002)
    connection.execute("update branches set is_active = false where id = %s", (branch,))
    query = "select can_access_branch(%s, %s)"
    for account, expected in [
        ("admin of the second", False),
        ("super admin of A", True),
        ("super admin of B", False),
        ("root", True),
    ]:
        assert connection.execute(query, (user_id(account), branch)).fetchone() == (expected,)


@pytest.mark.parametrize("table", ["orders", "customers", "product_branch_stock"])
def test_no_row_points_to_a_branch_of_another_organization(connection, table):
    connection.execute("delete from order_items")
    query = f"update {table} set branch_id = %s where branch_id = %s".encode()
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute(query, (demo_id(11000000, 2001), demo_id(11000000, 1001)))


def test_an_access_row_to_a_branch_of_another_organization_is_refused(connection):
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute(
            "insert into admin_branch_access (admin_user_id, organization_id, branch_id)"
            " values (%s, %s, %s)",
            (user_id("vendedor"), demo_id(10000000, 1), demo_id(11000000, 2001)),
        )


@pytest.mark.parametrize("role", ["super_admin", "admin", "employee", "vendedor"])
def test_staff_of_a_shop_needs_an_organization(connection, role):
    connection.execute("delete from admin_branch_access")
    with pytest.raises(errors.CheckViolation):
        connection.execute(
            "update admin_users set organization_id = null, role = %s where id = %s",
            (role, user_id("vendedor")),
        )


def test_a_user_with_access_rows_can_not_be_moved_to_another_organization(connection):
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute(
            "update admin_users set organization_id = %s where id = %s",
            (demo_id(10000000, 2), user_id("vendedor")),
        )
