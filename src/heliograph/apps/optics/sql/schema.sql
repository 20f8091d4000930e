-- The tables of the demo shop: what the live-rows demo needs of an optical company, and no more.
--
-- Runs once, inside the transaction of `load_demo`, on a database that the base migrations have
-- prepared (roles anon, authenticated, service_role; auth.users, auth.uid(); the publication).
-- Every domain row carries organization_id and branch_id; composite foreign keys make it
-- impossible that the two disagree, so a policy that judges the branch judges the organization.

create schema optics;
comment on schema optics is 'Business functions of the Heliograph demo shop, for its server only.';
revoke all on schema optics from public, anon, authenticated;

-- One row: which version of these files made the tables.
create table optics.installation (
    is_only boolean primary key default true check (is_only),
    fingerprint text not null,
    installed_at timestamptz not null default now()
);

create table public.organizations (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    slug text not null unique,
    subscription_tier text not null default 'basic'
        check (subscription_tier in ('basic', 'pro', 'premium')),
    status text not null default 'active' check (status in ('active', 'suspended', 'cancelled')),
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table public.branches (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references public.organizations (id),
    name text not null,
    code text not null,
    city text,
    phone text,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, code),
    unique (organization_id, id)
);

-- Staff. The id is the user's id in auth.users. No default role: an insert must say which.
create table public.admin_users (
    id uuid primary key references auth.users (id) on delete cascade,
    email text not null unique,
    full_name text not null,
    role text not null
        check (role in ('root', 'dev', 'super_admin', 'admin', 'employee', 'vendedor')),
    organization_id uuid references public.organizations (id),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, id),
    constraint admin_users_organization_required
        check (organization_id is not null or role in ('root', 'dev'))
);

-- Who works where. branch_id NULL means every branch of the organization. organization_id stands
-- here so that two foreign keys can require that user and branch belong to the same one.
create table public.admin_branch_access (
    id uuid primary key default gen_random_uuid(),
    admin_user_id uuid not null,
    organization_id uuid not null,
    branch_id uuid,
    role text not null default 'manager' check (role in ('manager', 'staff', 'viewer')),
    is_primary boolean not null default false,
    created_at timestamptz not null default now(),
    unique nulls not distinct (admin_user_id, branch_id),
    constraint admin_branch_access_user_of_organization
        foreign key (organization_id, admin_user_id)
        references public.admin_users (organization_id, id) on delete cascade,
    constraint admin_branch_access_branch_of_organization
        foreign key (organization_id, branch_id) references public.branches (organization_id, id)
);

-- The one table that is the same for everybody and has no row level security.
create table public.categories (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    slug text not null unique,
    description text,
    image_url text,
    parent_id uuid references public.categories (id),
    sort_order integer not null default 0,
    is_active boolean not null default true
);

create table public.products (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references public.organizations (id),
    category_id uuid not null references public.categories (id),
    name text not null,
    slug text not null,
    sku text not null,
    -- Whole pesos, tax included: CLP has no decimals.
    price bigint not null check (price >= 0),
    status text not null default 'draft' check (status in ('draft', 'active', 'archived')),
    -- False for services, which are sold without being counted.
    is_stocked boolean not null default true,
    is_featured boolean not null default false,
    low_stock_threshold integer not null default 5 check (low_stock_threshold >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, slug),
    unique (organization_id, sku),
    unique (organization_id, id)
);
create index products_category on public.products (category_id);

create table public.product_branch_stock (
    product_id uuid not null,
    branch_id uuid not null,
    organization_id uuid not null,
    quantity integer not null check (quantity >= 0),
    reserved_quantity integer not null default 0 check (reserved_quantity >= 0),
    low_stock_threshold integer not null default 5 check (low_stock_threshold >= 0),
    updated_at timestamptz not null default now(),
    primary key (product_id, branch_id),
    foreign key (organization_id, product_id) references public.products (organization_id, id),
    foreign key (organization_id, branch_id) references public.branches (organization_id, id)
);
create index product_branch_stock_branch on public.product_branch_stock (branch_id);

create table public.customers (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null,
    branch_id uuid not null,
    first_name text not null,
    last_name text not null,
    email text,
    phone text,
    rut text not null,
    created_at timestamptz not null default now(),
    unique (organization_id, rut),
    unique (organization_id, id),
    foreign key (organization_id, branch_id) references public.branches (organization_id, id)
);
create index customers_branch on public.customers (organization_id, branch_id);

create table public.orders (
    id uuid primary key default gen_random_uuid(),
    order_number text not null,
    -- Empty for a sale at the counter to somebody who leaves no name.
    customer_id uuid,
    total_amount bigint not null check (total_amount >= 0),
    currency text not null default 'CLP' check (currency = 'CLP'),
    status text not null default 'pending' check (
        status in ('pending', 'processing', 'shipped', 'delivered', 'cancelled', 'refunded')
    ),
    payment_status text not null default 'pending' check (
        payment_status in (
            'pending', 'paid', 'failed', 'refunded', 'partially_refunded', 'partial',
            'on_hold_payment'
        )
    ),
    is_pos_sale boolean not null default false,
    organization_id uuid not null,
    branch_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, order_number),
    unique (organization_id, branch_id, id),
    foreign key (organization_id, branch_id) references public.branches (organization_id, id),
    foreign key (organization_id, customer_id) references public.customers (organization_id, id)
);
create index orders_newest on public.orders (organization_id, created_at desc, id desc);
create index orders_branch_status on public.orders (branch_id, status);
create index orders_customer on public.orders (customer_id);

create table public.order_items (
    id uuid primary key default gen_random_uuid(),
    order_id uuid not null,
    organization_id uuid not null,
    branch_id uuid not null,
    product_id uuid not null,
    quantity integer not null check (quantity > 0),
    unit_price bigint not null check (unit_price >= 0),
    unique (order_id, product_id),
    foreign key (organization_id, branch_id, order_id)
        references public.orders (organization_id, branch_id, id)
        on update cascade on delete cascade,
    foreign key (organization_id, product_id) references public.products (organization_id, id)
);
create index order_items_product on public.order_items (product_id);

-- The fixed ids of the seed: a prefix per table, then the number of the row.
create function optics.demo_id(p_prefix text, p_number integer) returns uuid
language sql immutable strict
set search_path = ''
as $$
    select format('%s-0000-4000-8000-%s', p_prefix, lpad(p_number::text, 12, '0'))::uuid
$$;

-- Seeded numbers stay below 1001, so the two can never meet.
create sequence optics.order_number start with 1001;

create function optics.touch_updated_at() returns trigger
language plpgsql
set search_path = ''
as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create trigger touch_updated_at before update on public.organizations
    for each row execute function optics.touch_updated_at();
create trigger touch_updated_at before update on public.branches
    for each row execute function optics.touch_updated_at();
create trigger touch_updated_at before update on public.admin_users
    for each row execute function optics.touch_updated_at();
create trigger touch_updated_at before update on public.products
    for each row execute function optics.touch_updated_at();
create trigger touch_updated_at before update on public.product_branch_stock
    for each row execute function optics.touch_updated_at();
create trigger touch_updated_at before update on public.orders
    for each row execute function optics.touch_updated_at();
