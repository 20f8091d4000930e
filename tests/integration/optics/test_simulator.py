"""The shop simulator: every action is one transaction that leaves the shop in order.

Triggers write each change with its transaction id into a journal; what one action did is then
read from the journal and compared with what it says it did.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from fixtures.demo import load, run_migrations
from heliograph import limits
from heliograph.apps.optics.simulator import Pace, ShopSimulator
from heliograph.apps.optics.trading import Trade, TradeKind, Trader
from heliograph.errors import ConfigurationError
from heliograph.ports.sql_session import SqlSession
from heliograph.postgres.sql_session import open_sql_session

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

_TRADES = 400
_JOURNAL = """
create table public.journal (
    id bigserial primary key, transaction xid8, table_name text, operation text,
    old_row jsonb, new_row jsonb
);
create function public.keep_journal() returns trigger language plpgsql as $$
begin
    insert into public.journal (transaction, table_name, operation, old_row, new_row)
    values (pg_current_xact_id(), tg_table_name, tg_op, to_jsonb(old), to_jsonb(new));
    return null;
end
$$;
create trigger journal after insert or update or delete on orders
    for each row execute function keep_journal();
create trigger journal after insert or update or delete on order_items
    for each row execute function keep_journal();
create trigger journal after insert or update or delete on product_branch_stock
    for each row execute function keep_journal();
"""
_STEPS = {
    ("pending", "processing"),
    ("processing", "shipped"),
    ("shipped", "delivered"),
    ("pending", "cancelled"),
    ("processing", "cancelled"),
}
_PAYMENTS = {
    *(("pending", outcome) for outcome in ("paid", "partial", "failed")),
    *(("on_hold_payment", outcome) for outcome in ("paid", "partial", "failed")),
    *(("failed", outcome) for outcome in ("paid", "partial")),
    ("partial", "paid"),
    # By a cancellation.
    ("paid", "refunded"),
    ("partial", "refunded"),
}


class StillClock:
    def monotonic_s(self) -> float:
        return 0.0

    def unix_s(self) -> float:
        return 0.0


def read(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


async def trade(url: str, count: int, seed: int = 1) -> list[Trade]:
    trader = Trader(random.Random(seed))
    async with open_sql_session(url, application_name="test") as session:
        trades = [await trader.trade(session) for _ in range(count)]
    assert None not in trades
    return [trade for trade in trades if trade is not None]


async def test_every_action_is_one_transaction_that_leaves_the_shop_in_order(demo_url):
    run(demo_url, _JOURNAL)
    trades = await trade(demo_url, _TRADES)
    assert {trade.kind for trade in trades} == set(TradeKind) - {TradeKind.REMOVAL}
    assert len({trade.branch_id for trade in trades}) == 3

    journal: dict[str, list[tuple]] = {}
    for transaction, *entry in read(
        demo_url,
        "select transaction::text, table_name, operation, old_row, new_row"
        " from journal order by id",
    ):
        journal.setdefault(transaction, []).append(tuple(entry))
    assert len(journal) == _TRADES

    for done, entries in zip(trades, journal.values(), strict=True):
        assert_in_order(done, entries)
    bad_totals = (
        "select count(*) from orders where total_amount is distinct from"
        " (select sum(quantity * unit_price) from order_items where order_id = orders.id)"
    )
    assert read(demo_url, bad_totals) == [(0,)]
    negative = "select count(*) from product_branch_stock where quantity < reserved_quantity"
    assert read(demo_url, negative) == [(0,)]


def assert_in_order(done: Trade, entries: list[tuple]) -> None:
    """Check what one transaction wrote against the action that it was."""
    orders = [entry for entry in entries if entry[0] == "orders"]
    items = [entry for entry in entries if entry[0] == "order_items"]
    stock = [entry for entry in entries if entry[0] == "product_branch_stock"]
    assert all((e[3] or e[2])["branch_id"] == done.branch_id for e in entries)
    moved = Counter({e[3]["product_id"]: e[3]["quantity"] - e[2]["quantity"] for e in stock})
    for _, operation, old, new in orders:
        if operation == "UPDATE":
            assert old["status"] == new["status"] or (old["status"], new["status"]) in _STEPS
            change = (old["payment_status"], new["payment_status"])
            assert change[0] == change[1] or change in _PAYMENTS
    match done.kind:
        case TradeKind.NEW_ORDER | TradeKind.COUNTER_SALE:
            [(_, operation, _, order)] = orders
            assert operation == "INSERT"
            is_pos_sale = done.kind is TradeKind.COUNTER_SALE
            assert order["is_pos_sale"] == is_pos_sale
            expected = ("delivered", "paid") if is_pos_sale else ("pending", "pending")
            assert (order["status"], order["payment_status"]) == expected
            sold = Counter({e[3]["product_id"]: -e[3]["quantity"] for e in items})
            assert items
            # Services are sold without being counted.
            assert moved.items() <= sold.items()
        case TradeKind.STATUS_STEP | TradeKind.PAYMENT:
            assert [e[1] for e in entries] == ["UPDATE"]
            assert orders
        case TradeKind.CANCELLATION:
            assert [e[3]["status"] for e in orders] == ["cancelled"]
            assert all(quantity > 0 for quantity in moved.values())
        case TradeKind.RESTOCK:
            assert len(entries) == 1
            assert all(quantity > 0 for quantity in moved.values())
        case TradeKind.REMOVAL:
            assert {e[1] for e in entries} == {"DELETE"}


async def test_the_same_seed_on_the_same_tables_trades_the_same(postgres_cluster, make_database):
    done = []
    for _ in range(2):
        url = make_database(postgres_cluster)
        await run_migrations(url)
        await load(url)
        done.append([(trade.kind, trade.branch_id) for trade in await trade(url, 30, seed=7)])
    assert done[0] == done[1]


async def test_it_trades_only_where_the_demo_says_so(demo_url):
    run(
        demo_url,
        "insert into organizations (name, slug) values ('Real', 'real');"
        "insert into branches (organization_id, name, code)"
        " select id, 'Real', 'REAL' from organizations where slug = 'real'",
    )
    places = {done.branch_id for done in await trade(demo_url, 60)}
    query = (
        "select b.id::text from branches b join organizations o on o.id = b.organization_id"
        " where o.metadata ->> 'simulated' = 'true'"
    )
    assert places == {row[0] for row in read(demo_url, query)}


async def test_orders_do_not_pile_up(demo_url):
    """Longer than any pile could stay below the bounds by chance."""
    run(
        demo_url,
        "insert into orders (order_number, total_amount, status, organization_id, branch_id)"
        " select 'OLD-' || code || n, 0, 'delivered', organization_id, branches.id"
        f" from branches, generate_series(1, {limits.SIMULATOR_FINISHED_ORDERS_MAX}) as n;"
        "insert into orders (order_number, total_amount, status, organization_id, branch_id)"
        " select 'NEW-' || code || n, 0, 'pending', organization_id, branches.id"
        f" from branches, generate_series(1, {limits.SIMULATOR_OPEN_ORDERS_MAX}) as n",
    )
    trades = await trade(demo_url, _TRADES)
    assert TradeKind.REMOVAL in {done.kind for done in trades}
    finished = "orders.status in ('delivered', 'cancelled', 'refunded')"
    [(most_finished, most_open)] = read(
        demo_url,
        "select max(done), max(still_open) from ("
        f"select count(*) filter (where {finished}) as done,"
        f" count(*) filter (where not {finished}) as still_open"
        " from orders join organizations o on o.id = organization_id"
        " where o.metadata ->> 'simulated' = 'true' group by branch_id) as counted",
    )
    assert most_finished <= limits.SIMULATOR_FINISHED_ORDERS_MAX + 30
    assert most_open <= limits.SIMULATOR_OPEN_ORDERS_MAX + 5


async def test_empty_shelves_are_filled_again(demo_url):
    run(demo_url, "update product_branch_stock set quantity = 0")
    trades = await trade(demo_url, 120)
    assert any(done.kind is TradeKind.COUNTER_SALE for done in trades)
    assert read(demo_url, "select max(quantity) > 0 from product_branch_stock") == [(True,)]


async def test_it_refuses_to_run_where_there_is_no_demo(migrated_url):
    simulator = ShopSimulator(
        lambda: open_sql_session(migrated_url, application_name="test"),
        random=random.Random(1),
        clock=StillClock(),
    )
    with pytest.raises(ConfigurationError, match="finds none"):
        await simulator.run()


async def test_it_goes_on_after_its_connection_was_killed_and_ends_when_cancelled(demo_url):
    reached = asyncio.Condition()
    sleeps = 0

    async def sleep(_seconds: float) -> None:
        nonlocal sleeps
        async with reached:
            sleeps += 1
            reached.notify_all()

    @asynccontextmanager
    async def open_session() -> AsyncIterator[SqlSession]:
        async with open_sql_session(demo_url, application_name="simulated shop") as session:
            yield session

    simulator = ShopSimulator(
        open_session,
        random=random.Random(3),
        clock=StillClock(),
        pace=Pace(pause_s_min=0, pause_s_max=0),
        sleep=sleep,
    )

    async def wait_trades(count: int) -> None:
        async with asyncio.timeout(20), reached:
            await reached.wait_for(lambda: simulator.statistics().trades >= count)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(simulator.run())
        await wait_trades(5)
        killed = read(
            demo_url,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'simulated shop' and datname = current_database()",
        )
        assert killed == [(True,)]
        await wait_trades(simulator.statistics().trades + 5)
        task.cancel()
    assert simulator.statistics().outages == 1
    assert simulator.statistics().refusals == 0
