-- Removes what belongs to the demo's organizations and nothing else, leaves first. Inside one
-- transaction with the seed: subscribers see rows go and come back, nobody has to start over.
create temporary table demo_organization on commit drop as
select id from public.organizations where metadata @> '{"is_demo": true}';

delete from public.order_items where organization_id in (select id from demo_organization);
delete from public.orders where organization_id in (select id from demo_organization);
delete from public.customers where organization_id in (select id from demo_organization);
delete from public.product_branch_stock where organization_id in (select id from demo_organization);
delete from public.products where organization_id in (select id from demo_organization);
delete from public.admin_branch_access where organization_id in (select id from demo_organization);
delete from public.admin_users
where organization_id in (select id from demo_organization)
    or id in (optics.demo_id('12000000', 1), optics.demo_id('12000000', 2));
delete from public.branches where organization_id in (select id from demo_organization);
delete from public.organizations where id in (select id from demo_organization);
delete from public.categories
where id in (select optics.demo_id('20000000', number) from generate_series(1, 4) as number)
    and not exists (select from public.products where products.category_id = categories.id);
delete from auth.users where email like '%.example.com'
    and id::text like '12000000-0000-4000-8000-%';
drop table demo_organization;
