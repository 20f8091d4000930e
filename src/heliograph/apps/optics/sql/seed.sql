-- The demo's content: fixed ids, invented names, brands and prices, e-mail addresses that nobody
-- can own. Inserts what is missing and leaves alone what is there, so it may run at every start;
-- `reset.sql` first, and everything is as on the first day.
--
-- Prefixes of the ids: 10 organizations, 11 branches, 12 staff, 13 access rows, 20 categories,
-- 21 products, 30 customers, 40 orders, 41 order items. Rows of organization n are numbered from
-- n * 1000.

-- `simulated`: the shop simulator trades here.
insert into public.organizations (id, name, slug, subscription_tier, metadata)
select
    optics.demo_id('10000000', number), name, slug, tier,
    jsonb_build_object('is_demo', true, 'simulated', simulated)
from (values
    (1, 'Óptica Alerzal', 'optica-alerzal', 'premium', true),
    (2, 'Óptica Brumaluz', 'optica-brumaluz', 'pro', true),
    (3, 'Óptica Cobrizal', 'optica-cobrizal', 'basic', false)
) as organization (number, name, slug, tier, simulated)
on conflict do nothing;

insert into public.branches (id, organization_id, name, code, city)
select
    optics.demo_id('11000000', number), optics.demo_id('10000000', number / 1000), name, code, city
from (values
    (1001, 'Casa Matriz', 'MATRIZ', 'Santiago'),
    (1002, 'Sucursal Norte', 'NORTE', 'Antofagasta'),
    (2001, 'Casa Matriz', 'MATRIZ', 'Puerto Varas'),
    (3001, 'Casa Matriz', 'MATRIZ', 'Rancagua')
) as branch (number, name, code, city)
on conflict do nothing;

-- Staff. Passwords come with the Auth service: encrypted_password stays NULL, so nobody can sign
-- in with one. `branches` is empty for those who need no access rows.
with staff (number, email, full_name, role, organization, branches) as (
    values
        (1, 'rocio@operator.example.com', 'Rocío Alvanor', 'root', null, array[]::integer[]),
        (2, 'dante@operator.example.com', 'Dante Orvelle', 'dev', null, '{}'),
        (1001, 'amaya@alerzal.example.com', 'Amaya Rucalén', 'super_admin', 1, '{}'),
        (1002, 'bruno@alerzal.example.com', 'Bruno Ostales', 'admin', 1, '{1001,1002}'),
        (1003, 'celia@alerzal.example.com', 'Celia Montrel', 'admin', 1, '{1002}'),
        (1004, 'dario@alerzal.example.com', 'Darío Fuentel', 'employee', 1, '{1001}'),
        (1005, 'elisa@alerzal.example.com', 'Elisa Navarén', 'vendedor', 1, '{1002}'),
        (2001, 'fabian@brumaluz.example.com', 'Fabián Lorcas', 'super_admin', 2, '{}'),
        (2002, 'greta@brumaluz.example.com', 'Greta Ulmeda', 'vendedor', 2, '{2001}'),
        (3001, 'hilda@cobrizal.example.com', 'Hilda Parenko', 'super_admin', 3, '{}'),
        (3002, 'ivo@cobrizal.example.com', 'Ivo Sandrel', 'vendedor', 3, '{3001}')
), users as (
    insert into auth.users (
        id, aud, role, email, email_confirmed_at, raw_app_meta_data, raw_user_meta_data,
        created_at, updated_at
    )
    select
        optics.demo_id('12000000', number), 'authenticated', 'authenticated', email,
        timestamptz '2026-11-02 12:00:00+00',
        jsonb_build_object('provider', 'email', 'providers', jsonb_build_array('email')),
        jsonb_build_object('full_name', full_name),
        timestamptz '2026-11-02 12:00:00+00', timestamptz '2026-11-02 12:00:00+00'
    from staff
    on conflict do nothing
), members as (
    insert into public.admin_users (id, email, full_name, role, organization_id)
    select
        optics.demo_id('12000000', number), email, full_name, role,
        optics.demo_id('10000000', organization)
    from staff
    on conflict do nothing
)
insert into public.admin_branch_access (
    id, admin_user_id, organization_id, branch_id, role, is_primary
)
select
    optics.demo_id('13000000', number * 10 + place::integer),
    optics.demo_id('12000000', number),
    optics.demo_id('10000000', organization),
    optics.demo_id('11000000', branch),
    case role when 'admin' then 'manager' else 'staff' end,
    place = 1
from staff
cross join lateral unnest(branches) with ordinality as given (branch, place)
on conflict do nothing;

insert into public.categories (id, name, slug, description, sort_order)
select optics.demo_id('20000000', number), name, slug, description, number
from (values
    (1, 'Marcos', 'marcos', 'Armazones para lentes ópticos'),
    (2, 'Lentes de sol', 'lentes-de-sol', 'Con filtro UV 400'),
    (3, 'Accesorios', 'accesorios', 'Estuches, limpieza y repuestos'),
    (4, 'Servicios', 'servicios', 'Exámenes y ajustes')
) as category (number, name, slug, description)
on conflict do nothing;

-- One range, sold by every organization at its own prices: the second asks 5 % more, the third
-- 5 % less, rounded to ten pesos.
with range (number, category, name, slug, price, is_featured) as (
    values
        (1, 1, 'Lumbrey 101 Carey', 'lumbrey-101-carey', 129900, true),
        (2, 1, 'Lumbrey 204 Negro Mate', 'lumbrey-204-negro-mate', 139900, false),
        (3, 1, 'Lumbrey Junior 07', 'lumbrey-junior-07', 94900, false),
        (4, 1, 'Koryn Arco', 'koryn-arco', 189900, true),
        (5, 1, 'Koryn Lineal', 'koryn-lineal', 199900, false),
        (6, 1, 'Koryn Titanio 3', 'koryn-titanio-3', 249900, true),
        (7, 1, 'Tresvar Redondo', 'tresvar-redondo', 109900, false),
        (8, 1, 'Tresvar Ágata', 'tresvar-agata', 119900, false),
        (9, 1, 'Nubarel Aire', 'nubarel-aire', 159900, false),
        (10, 1, 'Nubarel Vértice', 'nubarel-vertice', 169900, false),
        (11, 2, 'Nubarel Costa', 'nubarel-costa', 149900, true),
        (12, 2, 'Koryn Polar 60', 'koryn-polar-60', 179900, false),
        (13, 2, 'Tresvar Duna', 'tresvar-duna', 99900, false),
        (14, 2, 'Lumbrey Sol Junior', 'lumbrey-sol-junior', 59900, false),
        (15, 3, 'Estuche rígido', 'estuche-rigido', 9990, false),
        (16, 3, 'Paño de microfibra', 'pano-de-microfibra', 3990, false),
        (17, 3, 'Líquido limpiador 60 ml', 'liquido-limpiador-60-ml', 5990, false),
        (18, 3, 'Cordón ajustable', 'cordon-ajustable', 4990, false),
        (19, 4, 'Examen visual', 'examen-visual', 25000, false),
        (20, 4, 'Ajuste de armazón', 'ajuste-de-armazon', 8000, false)
)
insert into public.products (
    id, organization_id, category_id, name, slug, sku, price, status, is_stocked, is_featured
)
select
    optics.demo_id('21000000', organization * 1000 + number),
    optics.demo_id('10000000', organization),
    optics.demo_id('20000000', category),
    name, slug,
    format('OPT-%s', lpad(number::text, 3, '0')),
    round(price * percent / 100.0, -1)::bigint,
    'active', category <> 4, is_featured
from range
cross join (values (1, 100), (2, 105), (3, 95)) as seller (organization, percent)
on conflict do nothing;

-- In Casa Matriz of the first organization two products stand one above their threshold (the next
-- sale is a low-stock event) and of one a single piece is left.
insert into public.product_branch_stock (product_id, branch_id, organization_id, quantity)
select
    product.id, branch.id, branch.organization_id,
    case
        when branch.id <> optics.demo_id('11000000', 1001)
            then 8 + ascii(right(product.sku, 1)) % 10 + length(branch.city)
        when product.sku in ('OPT-003', 'OPT-017') then product.low_stock_threshold + 1
        when product.sku = 'OPT-006' then 1
        else 10 + ascii(right(product.sku, 1)) % 10
    end
from public.branches as branch
join public.products as product on product.organization_id = branch.organization_id
where product.is_stocked
    and branch.organization_id in (
        optics.demo_id('10000000', 1), optics.demo_id('10000000', 2), optics.demo_id('10000000', 3)
    )
    and product.id in (
        select optics.demo_id('21000000', organization * 1000 + number)
        from generate_series(1, 3) as organization
        cross join generate_series(1, 20) as number
    )
on conflict do nothing;

-- RUT numbers from 99.999.001 on with the check digit 0 throughout: shaped like real ones, and
-- plainly not.
insert into public.customers (
    id, organization_id, branch_id, first_name, last_name, email, phone, rut
)
select
    optics.demo_id('30000000', organization * 1000 + number),
    optics.demo_id('10000000', organization),
    optics.demo_id('11000000', organization * 1000 + branch),
    first_name, last_name,
    format('cliente%s@customers.example.com', organization * 1000 + number),
    format('+56 9 0000 %s', organization * 1000 + number),
    format('99.999.%s-0', lpad(number::text, 3, '0'))
from (values
    (1, 1, 1, 'Abril', 'Castrena'), (1, 2, 1, 'Benicio', 'Dorales'),
    (1, 3, 1, 'Camila', 'Erranz'), (1, 4, 1, 'Damián', 'Folcar'),
    (1, 5, 1, 'Emilia', 'Garmen'), (1, 6, 1, 'Facundo', 'Hualde'),
    (1, 7, 1, 'Gabriela', 'Isaurre'), (1, 8, 1, 'Héctor', 'Jarvel'),
    (1, 9, 1, 'Isidora', 'Kreval'), (1, 10, 1, 'Joaquín', 'Llanquel'),
    (1, 11, 1, 'Karina', 'Merolas'), (1, 12, 1, 'Lautaro', 'Nordena'),
    (1, 13, 1, 'Magdalena', 'Oñatel'), (1, 14, 1, 'Nicanor', 'Pellunes'),
    (1, 15, 1, 'Olivia', 'Quirral'), (1, 16, 2, 'Patricio', 'Rosendal'),
    (1, 17, 2, 'Renata', 'Sarmel'), (1, 18, 2, 'Simón', 'Tagual'),
    (1, 19, 2, 'Trinidad', 'Urmena'), (1, 20, 2, 'Ulises', 'Vascor'),
    (1, 21, 2, 'Valentina', 'Wendral'), (1, 22, 2, 'Wenceslao', 'Yañel'),
    (1, 23, 2, 'Ximena', 'Zarcela'), (1, 24, 2, 'Yerko', 'Aldunes'),
    (1, 25, 2, 'Zulema', 'Brisca'), (2, 1, 1, 'Aurora', 'Cenzal'),
    (2, 2, 1, 'Baltazar', 'Dumiel'), (2, 3, 1, 'Catalina', 'Espiral'),
    (2, 4, 1, 'Domingo', 'Farol'), (2, 5, 1, 'Elena', 'Gredos')
) as customer (organization, number, branch, first_name, last_name)
on conflict do nothing;

-- One order per payment status and sales at the counter, over all branches. The total is the sum
-- of the items; items come only with an order that this run inserts.
with seeded (number, branch, customer, status, payment_status, is_pos_sale, day, items) as (
    values
        (1, 1001, 1001, 'delivered', 'paid', false, 3, '{"1":1,"15":1}'::jsonb),
        (2, 1001, 1002, 'pending', 'pending', false, 9, '{"4":1}'),
        (3, 1001, 1003, 'processing', 'partial', false, 8, '{"6":1,"17":1}'),
        (4, 1001, 1004, 'pending', 'failed', false, 9, '{"11":1}'),
        (5, 1001, null, 'delivered', 'paid', true, 9, '{"16":2,"18":1}'),
        (6, 1002, 1016, 'refunded', 'refunded', false, 4, '{"7":1}'),
        (7, 1002, 1017, 'delivered', 'partially_refunded', false, 5, '{"9":1,"19":1}'),
        (8, 1002, 1018, 'processing', 'on_hold_payment', false, 8, '{"12":1}'),
        (9, 1002, 1019, 'shipped', 'paid', false, 7, '{"2":1,"15":1}'),
        (10, 1002, null, 'delivered', 'paid', true, 9, '{"20":1}'),
        (11, 2001, 2001, 'pending', 'pending', false, 9, '{"5":1}'),
        (12, 2001, 2002, 'shipped', 'paid', false, 7, '{"10":1,"18":1}'),
        (13, 2001, 2003, 'cancelled', 'failed', false, 6, '{"13":1}'),
        (14, 2001, null, 'delivered', 'paid', true, 9, '{"14":1,"16":1}'),
        (15, 3001, null, 'delivered', 'paid', true, 9, '{"8":1}'),
        (16, 3001, null, 'processing', 'paid', false, 8, '{"1":1}')
), lines as (
    select
        seeded.number, seeded.branch, item.key::integer as product,
        item.value::integer as quantity, product.price
    from seeded
    cross join lateral jsonb_each_text(seeded.items) as item
    join public.products as product
        on product.id
        = optics.demo_id('21000000', seeded.branch / 1000 * 1000 + item.key::integer)
), new_orders as (
    insert into public.orders (
        id, order_number, customer_id, total_amount, status, payment_status, is_pos_sale,
        organization_id, branch_id, created_at, updated_at
    )
    select
        optics.demo_id('40000000', number),
        format('PED-%s', lpad(number::text, 6, '0')),
        optics.demo_id('30000000', customer),
        (select sum(price * quantity) from lines where lines.number = seeded.number),
        status, payment_status, is_pos_sale,
        optics.demo_id('10000000', branch / 1000),
        optics.demo_id('11000000', branch),
        timestamptz '2026-11-01 15:00:00+00' + day * interval '1 day',
        timestamptz '2026-11-01 15:00:00+00' + day * interval '1 day'
    from seeded
    on conflict do nothing
    returning id
)
insert into public.order_items (
    id, order_id, organization_id, branch_id, product_id, quantity, unit_price
)
select
    optics.demo_id('41000000', number * 100 + product),
    optics.demo_id('40000000', number),
    optics.demo_id('10000000', branch / 1000),
    optics.demo_id('11000000', branch),
    optics.demo_id('21000000', branch / 1000 * 1000 + product),
    quantity, price
from lines
where optics.demo_id('40000000', number) in (select id from new_orders)
on conflict do nothing;
