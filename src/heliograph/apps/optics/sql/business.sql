-- What happens in the shop: each function is one business action, called in a transaction of its
-- own. A function that finds its action not possible now (not enough stock, an order that has
-- moved on) changes nothing and returns NULL; whoever calls it then does something else.
--
-- Orders: pending -> processing -> shipped -> delivered; cancelled from pending or processing.
-- A sale at the counter is delivered and paid at once.

-- `lines`: JSON array of {"product_id": uuid, "quantity": integer}, each product once.
-- Returns the id of the new order.
create function optics.place_order(
    p_branch_id uuid, p_customer_id uuid, p_lines jsonb, p_is_pos_sale boolean
) returns uuid
language plpgsql
set search_path = ''
as $$
declare
    v_organization_id uuid;
    v_order_id uuid;
    v_total bigint;
    v_impossible boolean;
begin
    select branch.organization_id into v_organization_id
    from public.branches as branch
    where branch.id = p_branch_id and branch.is_active;

    -- Locked in one order by everybody, so that two sales of the same goods can not deadlock.
    perform from public.product_branch_stock as stock
    where stock.branch_id = p_branch_id
        and stock.product_id in (select (line ->> 'product_id')::uuid
                                 from jsonb_array_elements(p_lines) as line)
    order by stock.product_id
    for update;

    select
        count(*) = 0
            or bool_or(product.id is null)
            or bool_or(line.quantity <= 0)
            or bool_or(
                product.is_stocked
                and coalesce(stock.quantity - stock.reserved_quantity, 0) < line.quantity
            ),
        sum(product.price * line.quantity)
    into v_impossible, v_total
    from jsonb_to_recordset(p_lines) as line (product_id uuid, quantity integer)
    left join public.products as product
        on product.id = line.product_id
        and product.organization_id = v_organization_id
        and product.status = 'active'
    left join public.product_branch_stock as stock
        on stock.product_id = product.id and stock.branch_id = p_branch_id;
    if v_organization_id is null or v_impossible then
        return null;
    end if;

    insert into public.orders (
        order_number, customer_id, total_amount, status, payment_status, is_pos_sale,
        organization_id, branch_id
    ) values (
        'PED-' || lpad(nextval('optics.order_number')::text, 6, '0'),
        p_customer_id,
        v_total,
        case when p_is_pos_sale then 'delivered' else 'pending' end,
        case when p_is_pos_sale then 'paid' else 'pending' end,
        p_is_pos_sale,
        v_organization_id,
        p_branch_id
    ) returning id into v_order_id;

    insert into public.order_items (
        order_id, organization_id, branch_id, product_id, quantity, unit_price
    )
    select
        v_order_id, v_organization_id, p_branch_id, product.id, line.quantity, product.price
    from jsonb_to_recordset(p_lines) as line (product_id uuid, quantity integer)
    join public.products as product on product.id = line.product_id
    order by product.sku;

    update public.product_branch_stock as stock
    set quantity = stock.quantity - line.quantity
    from jsonb_to_recordset(p_lines) as line (product_id uuid, quantity integer)
    where stock.product_id = line.product_id and stock.branch_id = p_branch_id;

    return v_order_id;
end
$$;

-- Takes an order one status further; returns the new status.
create function optics.advance_order(p_order_id uuid) returns text
language sql
set search_path = ''
as $$
    update public.orders
    set status = case status
        when 'pending' then 'processing'
        when 'processing' then 'shipped'
        when 'shipped' then 'delivered'
    end
    where id = p_order_id and status in ('pending', 'processing', 'shipped')
    returning status
$$;

-- `p_outcome`: paid, partial or failed; returns the new payment status.
create function optics.record_payment(p_order_id uuid, p_outcome text) returns text
language sql
set search_path = ''
as $$
    update public.orders
    set payment_status = p_outcome
    where id = p_order_id
        and status not in ('cancelled', 'refunded')
        and (payment_status, p_outcome) in (
            ('pending', 'paid'), ('pending', 'partial'), ('pending', 'failed'),
            ('on_hold_payment', 'paid'), ('on_hold_payment', 'partial'),
            ('on_hold_payment', 'failed'),
            ('failed', 'paid'), ('failed', 'partial'),
            ('partial', 'paid')
        )
    returning payment_status
$$;

-- Cancels an order that has not left the shop: the goods go back on the shelf, money paid goes
-- back to the customer. Returns the order's number.
create function optics.cancel_order(p_order_id uuid) returns text
language plpgsql
set search_path = ''
as $$
declare
    v_order_number text;
begin
    update public.orders
    set
        status = 'cancelled',
        payment_status = case
            when payment_status in ('paid', 'partial') then 'refunded' else payment_status
        end
    where id = p_order_id and status in ('pending', 'processing')
    returning order_number into v_order_number;
    if v_order_number is null then
        return null;
    end if;

    perform from public.product_branch_stock as stock
    where (stock.product_id, stock.branch_id) in (
        select item.product_id, item.branch_id
        from public.order_items as item
        where item.order_id = p_order_id
    )
    order by stock.product_id
    for update;

    update public.product_branch_stock as stock
    set quantity = stock.quantity + item.quantity
    from public.order_items as item
    where item.order_id = p_order_id
        and stock.product_id = item.product_id
        and stock.branch_id = item.branch_id;
    return v_order_number;
end
$$;

-- Puts goods on the shelf; returns the quantity that stands there now.
create function optics.restock(p_branch_id uuid, p_product_id uuid, p_quantity integer)
returns integer
language sql
set search_path = ''
as $$
    update public.product_branch_stock
    set quantity = quantity + p_quantity
    where branch_id = p_branch_id and product_id = p_product_id and p_quantity > 0
    returning quantity
$$;

-- Deletes the oldest finished order of a branch that has more than `p_keep` of them, so that a
-- demo left running does not fill the disk. Returns the order's number.
create function optics.remove_oldest_finished_order(p_branch_id uuid, p_keep integer) returns text
language sql
set search_path = ''
as $$
    delete from public.orders
    where id = (
        select oldest.id
        from public.orders as oldest
        where oldest.branch_id = p_branch_id
            and oldest.status in ('delivered', 'cancelled', 'refunded')
            and p_keep < (
                select count(*)
                from public.orders as finished
                where finished.branch_id = p_branch_id
                    and finished.status in ('delivered', 'cancelled', 'refunded')
            )
        order by oldest.created_at, oldest.id
        limit 1
    )
    returning order_number
$$;

revoke execute on all functions in schema optics from public, anon, authenticated;
