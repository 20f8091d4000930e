"""The demo is loaded once, whole, and only into a database of its own."""

import psycopg
import pytest

from fixtures.demo import run_migrations
from heliograph.apps.optics import demo
from heliograph.apps.optics.demo import load_demo, reset_demo
from heliograph.errors import ConfigurationError, StorageError
from heliograph.postgres.sql_session import open_sql_session

pytestmark = pytest.mark.postgres

_TABLES = (
    "auth.users",
    "public.organizations",
    "public.branches",
    "public.admin_users",
    "public.admin_branch_access",
    "public.categories",
    "public.products",
    "public.product_branch_stock",
    "public.customers",
    "public.orders",
    "public.order_items",
)
_OTHER_ORGANIZATION = "insert into organizations (name, slug) values ('Real one', 'real')"


def content(url: str, *, without_times: bool = False) -> dict[str, list[str]]:
    """Return every row of every table as text; created_at and updated_at left out on request."""
    removed = "- 'created_at' - 'updated_at'" if without_times else ""
    with psycopg.connect(url) as connection:
        return {
            table: [
                row[0]
                for row in connection.execute(
                    f"select (to_jsonb(t) {removed})::text from {table} as t order by 1".encode()
                )
            ]
            for table in _TABLES
        }


def run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


async def load(url: str, **options: bool) -> demo.DemoReport:
    async with open_sql_session(url, application_name="test") as session:
        return await load_demo(session, **options)


async def reset(url: str) -> demo.DemoReport:
    async with open_sql_session(url, application_name="test") as session:
        return await reset_demo(session)


@pytest.mark.asyncio
async def test_loading_twice_changes_nothing(migrated_url):
    first = await load(migrated_url)
    before = content(migrated_url)
    second = await load(migrated_url)
    assert content(migrated_url) == before
    assert first.is_new
    assert not second.is_new
    assert first.accounts == second.accounts


@pytest.mark.asyncio
async def test_loading_again_keeps_what_visitors_changed_and_brings_back_what_they_deleted(
    demo_url,
):
    run(demo_url, "update orders set status = 'shipped' where order_number = 'PED-000002'")
    run(demo_url, "delete from orders where order_number = 'PED-000003'")
    await load(demo_url)
    assert count(demo_url, "select count(*) from orders where status = 'shipped'") == 3
    assert count(demo_url, "select count(*) from orders") == 16
    assert count(demo_url, "select count(*) from order_items") == 23


@pytest.mark.asyncio
async def test_reset_returns_to_the_first_day_and_leaves_others_alone(demo_url):
    before = content(demo_url, without_times=True)
    run(demo_url, "update orders set status = 'cancelled'; delete from order_items")
    run(demo_url, "update product_branch_stock set quantity = 0")
    run(demo_url, "update admin_users set is_active = false where role = 'vendedor'")
    await reset(demo_url)
    assert content(demo_url, without_times=True) == before


@pytest.mark.asyncio
async def test_the_content_is_what_the_demo_promises(shared_demo_url):
    expected = {
        "select count(*) from organizations where metadata @> '{\"is_demo\": true}'": 3,
        "select count(distinct subscription_tier) from organizations": 3,
        "select count(*) from branches": 4,
        "select count(*) from products where organization_id = optics.demo_id('10000000', 1)": 20,
        "select count(*) from customers where organization_id = optics.demo_id('10000000', 1)": 25,
        "select count(*) from customers where organization_id = optics.demo_id('10000000', 2)": 5,
        "select count(*) from product_branch_stock where quantity = low_stock_threshold + 1": 2,
        "select count(*) from product_branch_stock where quantity = 1": 1,
        "select count(distinct payment_status) from orders": 7,
        "select count(distinct status) from orders": 6,
        "select count(*) from auth.users where encrypted_password is not null": 0,
        "select count(*) from auth.users where email not like '%@%.example.com'": 0,
        "select count(distinct role) from admin_users": 6,
        # The total of every order is the sum of its items.
        "select count(*) from orders where total_amount is distinct from"
        " (select sum(quantity * unit_price) from order_items where order_id = orders.id)": 0,
    }
    assert {query: count(shared_demo_url, query) for query in expected} == expected


@pytest.mark.asyncio
async def test_the_report_names_every_account(migrated_url):
    accounts = {account.email: account for account in (await load(migrated_url)).accounts}
    assert len(accounts) == 11
    celia = accounts["celia@alerzal.example.com"]
    assert (celia.role, celia.organization) == ("admin", "Óptica Alerzal")
    assert celia.branches == ("Sucursal Norte",)
    assert celia.user_id == "12000000-0000-4000-8000-000000001003"
    assert accounts["amaya@alerzal.example.com"].branches == ("Casa Matriz", "Sucursal Norte")
    root = accounts["rocio@operator.example.com"]
    assert (root.organization, root.branches) == (None, ())


@pytest.mark.asyncio
async def test_other_organizations_stop_loading_unless_forced(demo_url):
    run(demo_url, _OTHER_ORGANIZATION)
    with pytest.raises(ConfigurationError, match="not the demo's"):
        await load(demo_url)
    with pytest.raises(ConfigurationError, match="not the demo's"):
        await reset(demo_url)
    assert not (await load(demo_url, force=True)).is_new


@pytest.mark.asyncio
async def test_tables_of_somebody_else_stop_loading_even_when_forced(migrated_url):
    run(migrated_url, "create table public.orders (id integer)")
    with pytest.raises(ConfigurationError, match=r"public\.orders exist"):
        await load(migrated_url, force=True)
    assert count(migrated_url, "select count(*) from pg_tables where schemaname = 'public'") == 1


@pytest.mark.asyncio
async def test_without_the_base_migrations_loading_says_what_to_run(postgres_url):
    with pytest.raises(ConfigurationError, match="heliograph migrate"):
        await load(postgres_url)


@pytest.mark.asyncio
async def test_tables_of_another_version_are_replaced(demo_url):
    run(demo_url, "update optics.installation set fingerprint = 'older'")
    run(demo_url, "alter table orders add column gone integer")
    assert (await load(demo_url)).is_new
    query = "select count(*) from information_schema.columns where column_name = 'gone'"
    assert count(demo_url, query) == 0
    assert count(demo_url, "select count(*) from orders") == 16


@pytest.mark.asyncio
async def test_tables_of_another_version_with_other_organizations_are_never_replaced(demo_url):
    run(demo_url, "update optics.installation set fingerprint = 'older'")
    run(demo_url, _OTHER_ORGANIZATION)
    with pytest.raises(ConfigurationError, match="not the demo's"):
        await load(demo_url, force=True)
    assert count(demo_url, "select count(*) from organizations") == 4


@pytest.mark.asyncio
async def test_a_load_that_fails_leaves_nothing_behind(migrated_url):
    run(migrated_url, "create function public.is_admin(user_id uuid) returns text return 'mine'")
    with pytest.raises(StorageError):
        await load(migrated_url)
    assert count(migrated_url, "select count(*) from pg_tables where schemaname = 'public'") == 0
    assert count(migrated_url, "select count(*) from auth.users") == 0


def test_live_tables_are_published_with_full_identity(shared_demo_url):
    with psycopg.connect(shared_demo_url) as connection:
        rows = connection.execute(
            "select tablename, relreplident from pg_publication_tables"
            " join pg_class on oid = format('%I.%I', schemaname, tablename)::regclass"
            " where pubname = 'supabase_realtime' order by 1"
        ).fetchall()
    names = "branches categories customers order_items orders organizations"
    names += " product_branch_stock products"
    assert rows == [(name, "f") for name in names.split()]


def test_only_the_listed_tables_are_without_row_level_security(shared_demo_url):
    with psycopg.connect(shared_demo_url) as connection:
        rows = connection.execute(
            "select format('public.%s', relname) from pg_class"
            " where relnamespace = 'public'::regnamespace and relkind = 'r'"
            " and not relrowsecurity"
        ).fetchall()
    assert tuple(row[0] for row in rows) == demo.ALLOW_WITHOUT_RLS


@pytest.mark.asyncio
async def test_the_demo_runs_on_the_oldest_postgresql(postgres_cluster_15, make_database):
    url = make_database(postgres_cluster_15)
    await run_migrations(url)
    assert (await load(url)).is_new


def test_an_order_moves_to_another_branch_with_its_items(demo_url):
    first, second = (f"11000000-0000-4000-8000-00000000100{number}" for number in (1, 2))
    with psycopg.connect(demo_url) as connection:
        moved = connection.execute(
            "update orders set branch_id = %s where branch_id = %s returning id", (first, second)
        ).fetchall()
        assert moved
        branches = connection.execute(
            "select distinct branch_id::text from order_items where order_id = any(%s)",
            ([row[0] for row in moved],),
        ).fetchall()
    assert branches == [(first,)]
