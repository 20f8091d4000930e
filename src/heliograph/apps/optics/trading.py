"""One business action of the demo shop: chosen by chance, done by a function of the shop.

The functions stand in ``sql/business.sql``; this module asks which orders and goods there are,
chooses, and calls. It trades in branches of organizations that are marked
``{"is_demo": true, "simulated": true}`` and touches nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random  # noqa: TID251 - the type only; the instance comes from the caller
from typing import Final

import msgspec

from heliograph import limits
from heliograph.ports.sql_session import SqlSession


class TradeKind(StrEnum):
    """What can happen in the shop."""

    NEW_ORDER = "new order"
    COUNTER_SALE = "counter sale"
    STATUS_STEP = "status step"
    PAYMENT = "payment"
    CANCELLATION = "cancellation"
    RESTOCK = "restock"
    REMOVAL = "removal of an old order"


# An order takes three steps to be delivered: steps are three times as likely as new orders, so the
# number of open orders wanders about without growing.
_WEIGHTS: Final[Mapping[TradeKind, float]] = {
    TradeKind.NEW_ORDER: 14,
    TradeKind.COUNTER_SALE: 14,
    TradeKind.STATUS_STEP: 40,
    TradeKind.PAYMENT: 18,
    TradeKind.CANCELLATION: 3,
    TradeKind.RESTOCK: 11,
}

_BRANCHES: Final = """
select
    branch.id::text as branch_id,
    count(orders.id) filter (
        where orders.status in ('pending', 'processing', 'shipped')
    )::integer as open_orders,
    count(orders.id) filter (
        where orders.status in ('delivered', 'cancelled', 'refunded')
    )::integer as finished_orders
from public.branches as branch
join public.organizations as organization on organization.id = branch.organization_id
left join public.orders as orders on orders.branch_id = branch.id
where organization.metadata @> '{"is_demo": true, "simulated": true}' and branch.is_active
group by branch.id
order by branch.id
"""
_GOODS: Final = """
select
    product.id::text as product_id,
    case when product.is_stocked then stock.quantity - stock.reserved_quantity else 1 end
        as available
from public.products as product
join public.branches as branch on branch.organization_id = product.organization_id
left join public.product_branch_stock as stock
    on stock.product_id = product.id and stock.branch_id = branch.id
where branch.id = %s::uuid
    and product.status = 'active'
    and (not product.is_stocked or stock.quantity > stock.reserved_quantity)
order by product.sku
limit 200
"""
_CUSTOMERS: Final = """
select id::text as customer_id from public.customers where branch_id = %s::uuid
order by id limit 200
"""
_OPEN_ORDERS: Final = """
select id::text as order_id from public.orders
where branch_id = %s::uuid and status in ('pending', 'processing', 'shipped')
order by order_number limit 200
"""
_CANCELLABLE_ORDERS: Final = """
select id::text as order_id from public.orders
where branch_id = %s::uuid and status in ('pending', 'processing')
order by order_number limit 200
"""
_UNPAID_ORDERS: Final = """
select id::text as order_id, payment_status from public.orders
where branch_id = %s::uuid
    and status not in ('cancelled', 'refunded')
    and payment_status in ('pending', 'failed', 'partial', 'on_hold_payment')
order by order_number limit 200
"""
# Empty shelves first.
_LOWEST_STOCK: Final = """
select product_id::text as product_id from public.product_branch_stock
where branch_id = %s::uuid
order by quantity - low_stock_threshold, product_id
limit 4
"""


@dataclass(frozen=True, slots=True)
class Trade:
    """One business action that was committed.

    Attributes:
        kind: What happened.
        branch_id: Where.
        subject: Id of the order or of the product; the order's number for a cancellation or a
            removal.
    """

    kind: TradeKind
    branch_id: str
    subject: str


class Trader:
    """Chooses and does business actions; keeps nothing between two of them but its randomness."""

    def __init__(self, random: Random) -> None:
        """Take what decides; the same seed on the same tables trades the same."""
        self._random = random

    async def trade(self, session: SqlSession) -> Trade | None:
        """Do one business action in one transaction.

        Returns:
            What was done, or None if nothing was possible (no branch to trade in).

        Raises:
            UnavailableError: If the database is gone; the action may have been committed.
            StorageError: If PostgreSQL refuses; nothing happened.
        """
        async with session.transaction():
            branches = await session.execute(_BRANCHES)
            if not branches:
                return None
            branch = self._random.choice(branches)
            branch_id = str(branch["branch_id"])
            kind = self._choose_kind(branch)
            subject = await self._act(session, kind, branch_id)
            if subject is None:
                kind = TradeKind.RESTOCK
                subject = await self._restock(session, branch_id)
        return None if subject is None else Trade(kind, branch_id, subject)

    def _choose_kind(self, branch: Mapping[str, object]) -> TradeKind:
        finished_orders, open_orders = branch["finished_orders"], branch["open_orders"]
        if (
            isinstance(finished_orders, int)
            and finished_orders > limits.SIMULATOR_FINISHED_ORDERS_MAX
            and self._random.random() < 0.5  # noqa: PLR2004 - every second action clears up
        ):
            return TradeKind.REMOVAL
        [kind] = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        if (
            kind is TradeKind.NEW_ORDER
            and isinstance(open_orders, int)
            and open_orders >= limits.SIMULATOR_OPEN_ORDERS_MAX
        ):
            return TradeKind.STATUS_STEP
        return kind

    async def _act(self, session: SqlSession, kind: TradeKind, branch_id: str) -> str | None:
        """Run the action; return its subject, or None if it is not possible now."""
        match kind:
            case TradeKind.NEW_ORDER | TradeKind.COUNTER_SALE:
                is_pos_sale = kind is TradeKind.COUNTER_SALE
                return await self._order(session, branch_id, is_pos_sale=is_pos_sale)
            case TradeKind.STATUS_STEP:
                return await self._change_order(
                    session, branch_id, _OPEN_ORDERS, "select optics.advance_order(%s::uuid)"
                )
            case TradeKind.PAYMENT:
                return await self._pay(session, branch_id)
            case TradeKind.CANCELLATION:
                return await self._change_order(
                    session, branch_id, _CANCELLABLE_ORDERS, "select optics.cancel_order(%s::uuid)"
                )
            case TradeKind.RESTOCK:
                return await self._restock(session, branch_id)
            case TradeKind.REMOVAL:
                return await _call(
                    session,
                    "select optics.remove_oldest_finished_order(%s::uuid, %s)",
                    (branch_id, limits.SIMULATOR_FINISHED_ORDERS_MAX),
                )

    async def _order(self, session: SqlSession, branch_id: str, *, is_pos_sale: bool) -> str | None:
        goods = await session.execute(_GOODS, (branch_id,))
        customers = await session.execute(_CUSTOMERS, (branch_id,))
        if not goods or not (customers or is_pos_sale):
            return None
        chosen = self._random.sample(goods, min(len(goods), self._random.choice((1, 1, 1, 2, 3))))
        lines = [
            {"product_id": row["product_id"], "quantity": self._quantity(row["available"])}
            for row in chosen
        ]
        # Every other sale at the counter is to somebody who leaves no name.
        is_anonymous = is_pos_sale and (not customers or self._random.choice((True, False)))
        customer_id = None if is_anonymous else self._random.choice(customers)["customer_id"]
        return await _call(
            session,
            "select optics.place_order(%s::uuid, %s::uuid, %s::jsonb, %s)",
            (branch_id, customer_id, msgspec.json.encode(lines).decode(), is_pos_sale),
        )

    def _quantity(self, available: object) -> int:
        wanted = self._random.choice((1, 1, 1, 2))
        return min(wanted, available) if isinstance(available, int) else wanted

    async def _pay(self, session: SqlSession, branch_id: str) -> str | None:
        orders = await session.execute(_UNPAID_ORDERS, (branch_id,))
        if not orders:
            return None
        order = self._random.choice(orders)
        outcome = self._random.choice(("paid", "paid", "paid", "paid", "partial", "failed"))
        if order["payment_status"] == "partial" or (
            order["payment_status"] == "failed" and outcome == "failed"
        ):
            outcome = "paid"
        return await self._change(
            session, order, "select optics.record_payment(%s::uuid, %s)", (outcome,)
        )

    async def _change_order(
        self, session: SqlSession, branch_id: str, candidates: str, function: str
    ) -> str | None:
        orders = await session.execute(candidates, (branch_id,))
        if not orders:
            return None
        return await self._change(session, self._random.choice(orders), function)

    async def _change(
        self,
        session: SqlSession,
        order: Mapping[str, object],
        function: str,
        parameters: Sequence[object] = (),
    ) -> str | None:
        order_id = str(order["order_id"])
        outcome = await _call(session, function, (order_id, *parameters))
        return None if outcome is None else order_id

    async def _restock(self, session: SqlSession, branch_id: str) -> str | None:
        shelves = await session.execute(_LOWEST_STOCK, (branch_id,))
        if not shelves:
            return None
        product_id = str(self._random.choice(shelves)["product_id"])
        outcome = await _call(
            session,
            "select optics.restock(%s::uuid, %s::uuid, %s)",
            (branch_id, product_id, self._random.randint(3, 10)),
        )
        return None if outcome is None else product_id


async def _call(session: SqlSession, query: str, parameters: Sequence[object]) -> str | None:
    """Run a query of one row and one column; return its value as text."""
    [row] = await session.execute(query, parameters)
    [value] = row.values()
    return None if value is None else str(value)


async def has_branches(session: SqlSession) -> bool:
    """Tell whether there is a branch to trade in; the demo's tables need not exist."""
    [row] = await session.execute("select to_regclass('optics.installation') is null as missing")
    return not row["missing"] and bool(await session.execute(_BRANCHES))
