-- title: service_role passes row level security
-- modes: fresh
-- requires: roles, grant_bypassrls
-- ensures: bypassrls
-- without: service_role is judged by policies like any other role; add policies TO service_role USING (true) where it must see all
-- remedy: ALTER ROLE service_role BYPASSRLS;  (PostgreSQL 15: as a superuser; 16 and later: as a role with CREATEROLE and BYPASSRLS)

do $body$
begin
  if not (select r.rolbypassrls from pg_catalog.pg_roles r where r.rolname = 'service_role') then
    alter role service_role bypassrls;
  end if;
end
$body$;
