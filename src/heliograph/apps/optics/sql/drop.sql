-- Takes the demo's tables and functions away again, for a newer version of these files. Tables go
-- without CASCADE on purpose: what somebody built on top of them is not ours to remove.
drop table public.order_items, public.orders, public.customers, public.product_branch_stock,
    public.products, public.categories, public.admin_branch_access, public.admin_users,
    public.branches, public.organizations;
drop function public.can_access_branch(uuid, uuid), public.get_user_branches(uuid),
    public.is_super_admin(uuid), public.is_employee(uuid), public.is_root_user(uuid),
    public.get_user_organization_id(uuid), public.get_admin_role(uuid), public.is_admin(uuid);
drop schema optics cascade;
delete from auth.users where email like '%.example.com'
    and id::text like '12000000-0000-4000-8000-%';
