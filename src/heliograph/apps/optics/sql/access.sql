-- Who may see what: the access functions, the policies, the privileges, the publication.
--
-- The functions run as their owner (security definer) because they read admin_users and
-- admin_branch_access, which their callers may read only in part; without it the policies of those
-- two tables would call themselves. search_path is empty, every name is qualified. They look up
-- active staff only: an employee who is switched off loses everything at once.

-- "Is active staff". True for the lowest role too; not a privilege check.
create function public.is_admin(user_id uuid) returns boolean
language sql stable security definer
set search_path = ''
as $$
    select exists (
        select from public.admin_users as staff
        where staff.id = is_admin.user_id and staff.is_active
    )
$$;

create function public.get_admin_role(user_id uuid) returns text
language sql stable security definer
set search_path = ''
as $$
    select staff.role from public.admin_users as staff
    where staff.id = get_admin_role.user_id and staff.is_active
$$;

create function public.get_user_organization_id(user_id uuid) returns uuid
language sql stable security definer
set search_path = ''
as $$
    select staff.organization_id from public.admin_users as staff
    where staff.id = get_user_organization_id.user_id and staff.is_active
$$;

-- Works for the operator of the service, not for a shop.
create function public.is_root_user(user_id uuid) returns boolean
language sql stable security definer
set search_path = ''
as $$
    select exists (
        select from public.admin_users as staff
        where staff.id = is_root_user.user_id and staff.is_active and staff.role in ('root', 'dev')
    )
$$;

create function public.is_employee(user_id uuid) returns boolean
language sql stable security definer
set search_path = ''
as $$
    select exists (
        select from public.admin_users as staff
        where staff.id = is_employee.user_id
            and staff.is_active
            and staff.role in ('employee', 'vendedor')
    )
$$;

-- All branches of the own organization: by role, or by an access row without a branch.
-- True for the operator as well; whoever asks for an organization must compare it separately.
create function public.is_super_admin(user_id uuid) returns boolean
language sql stable security definer
set search_path = ''
as $$
    select exists (
        select from public.admin_users as staff
        where staff.id = is_super_admin.user_id
            and staff.is_active
            and (
                staff.role in ('root', 'dev', 'super_admin')
                or exists (
                    select from public.admin_branch_access as access
                    where access.admin_user_id = staff.id and access.branch_id is null
                )
            )
    )
$$;

create function public.get_user_branches(user_id uuid)
returns table (
    branch_id uuid, branch_name text, branch_code text, role text, is_primary boolean
)
language sql stable security definer
set search_path = ''
as $$
    select branch.id, branch.name, branch.code, reach.role, reach.is_primary
    from public.admin_users as staff
    cross join lateral (
        select
            staff.role in ('root', 'dev') as is_operator,
            public.is_super_admin(staff.id) as is_super
    ) as level
    join public.branches as branch
        on branch.is_active
        and (
            branch.organization_id = staff.organization_id
            or (level.is_operator and staff.organization_id is null)
        )
    left join public.admin_branch_access as access
        on not level.is_super
        and access.admin_user_id = staff.id
        and access.branch_id = branch.id
    cross join lateral (
        select
            case
                when level.is_operator then 'root'
                when level.is_super then 'super_admin'
                else access.role
            end as role,
            not level.is_super and access.is_primary as is_primary
    ) as reach
    where staff.id = get_user_branches.user_id
        and staff.is_active
        and (level.is_super or access.id is not null)
    order by reach.is_primary desc, branch.name, branch.id
$$;

-- The check that the policies of all branch rows use.
create function public.can_access_branch(user_id uuid, p_branch_id uuid) returns boolean
language sql stable security definer
set search_path = ''
as $$
    select coalesce(
        (
            select
                staff.role in ('root', 'dev')
                or exists (
                    select from public.branches as branch
                    where branch.id = can_access_branch.p_branch_id
                        and branch.organization_id = staff.organization_id
                        and (
                            staff.role = 'super_admin'
                            or exists (
                                select from public.admin_branch_access as access
                                where access.admin_user_id = staff.id
                                    and (
                                        access.branch_id is null
                                        or (branch.is_active and access.branch_id = branch.id)
                                    )
                            )
                        )
                )
            from public.admin_users as staff
            where staff.id = can_access_branch.user_id and staff.is_active
        ),
        false
    )
$$;

do $$
declare
    routine regprocedure;
begin
    foreach routine in array array[
        'public.is_admin(uuid)', 'public.get_admin_role(uuid)',
        'public.get_user_organization_id(uuid)', 'public.is_root_user(uuid)',
        'public.is_employee(uuid)', 'public.is_super_admin(uuid)',
        'public.get_user_branches(uuid)', 'public.can_access_branch(uuid, uuid)'
    ]::regprocedure[] loop
        execute format('revoke execute on function %s from public, anon', routine);
        execute format('grant execute on function %s to authenticated, service_role', routine);
    end loop;
end
$$;

-- Policies. `(select auth.uid())` is evaluated once per statement, not once per row.
-- Signed-in staff read; nobody writes through these roles in this release: the shop's own
-- functions do. anon reads the categories and nothing else.

alter table public.organizations enable row level security;
create policy organizations_own on public.organizations for select to authenticated
    using (
        id = (select public.get_user_organization_id((select auth.uid())))
        or (select public.is_root_user((select auth.uid())))
    );

alter table public.branches enable row level security;
create policy branches_accessible on public.branches for select to authenticated
    using (public.can_access_branch((select auth.uid()), id));

-- Colleagues' addresses and roles are for the super admin; others see themselves.
alter table public.admin_users enable row level security;
create policy admin_users_self on public.admin_users for select to authenticated
    using (is_active and id = (select auth.uid()));
create policy admin_users_of_organization on public.admin_users for select to authenticated
    using (
        (
            (select public.is_super_admin((select auth.uid())))
            and organization_id = (select public.get_user_organization_id((select auth.uid())))
        )
        or (select public.is_root_user((select auth.uid())))
    );

alter table public.admin_branch_access enable row level security;
create policy admin_branch_access_self on public.admin_branch_access for select to authenticated
    using (
        admin_user_id = (select auth.uid()) and (select public.is_admin((select auth.uid())))
    );
create policy admin_branch_access_of_organization on public.admin_branch_access
    for select to authenticated
    using (
        (
            (select public.is_super_admin((select auth.uid())))
            and organization_id = (select public.get_user_organization_id((select auth.uid())))
        )
        or (select public.is_root_user((select auth.uid())))
    );

-- A product belongs to the whole organization.
alter table public.products enable row level security;
create policy products_of_organization on public.products for select to authenticated
    using (
        organization_id = (select public.get_user_organization_id((select auth.uid())))
        or (select public.is_root_user((select auth.uid())))
    );

alter table public.product_branch_stock enable row level security;
create policy product_branch_stock_accessible on public.product_branch_stock
    for select to authenticated
    using (public.can_access_branch((select auth.uid()), branch_id));

alter table public.customers enable row level security;
create policy customers_accessible on public.customers for select to authenticated
    using (public.can_access_branch((select auth.uid()), branch_id));

alter table public.orders enable row level security;
create policy orders_accessible on public.orders for select to authenticated
    using (public.can_access_branch((select auth.uid()), branch_id));

alter table public.order_items enable row level security;
create policy order_items_accessible on public.order_items for select to authenticated
    using (public.can_access_branch((select auth.uid()), branch_id));

-- service_role usually bypasses row level security; where the host does not let us grant that,
-- this policy gives it the same view. A database may hand out privileges on new tables by default
-- (Supabase projects do, to anon too), so everything is revoked before it is granted.
do $$
declare
    relation regclass;
begin
    foreach relation in array array[
        'public.organizations', 'public.branches', 'public.admin_users',
        'public.admin_branch_access', 'public.categories', 'public.products',
        'public.product_branch_stock', 'public.customers', 'public.orders', 'public.order_items'
    ]::regclass[] loop
        execute format('revoke all on table %s from public, anon, authenticated', relation);
        execute format('grant select on table %s to authenticated', relation);
        execute format(
            'grant select, insert, update, delete on table %s to service_role', relation
        );
        if relation <> 'public.categories'::regclass then
            execute format(
                'create policy service_role_all on %s for all to service_role '
                'using (true) with check (true)', relation
            );
        end if;
    end loop;
end
$$;
grant select on public.categories to anon;

-- Live tables. FULL identity: a row that leaves somebody's view can then leave the screen too.
-- The tables are new and empty here, so nobody can have an earlier row under way; on a table in
-- use, `heliograph publish` takes the steps that keep an open writer's rows.
-- Staff and their access rows are not published: they decide rights, they are not shown live.
do $$
declare
    relation regclass;
    covers_all boolean;
begin
    select publication.puballtables into strict covers_all
    from pg_catalog.pg_publication as publication
    where publication.pubname = 'supabase_realtime';
    foreach relation in array array[
        'public.organizations', 'public.branches', 'public.categories', 'public.products',
        'public.product_branch_stock', 'public.customers', 'public.orders', 'public.order_items'
    ]::regclass[] loop
        execute format('alter table %s replica identity full', relation);
        if not covers_all then
            execute format('alter publication supabase_realtime add table %s', relation);
        end if;
    end loop;
end
$$;
