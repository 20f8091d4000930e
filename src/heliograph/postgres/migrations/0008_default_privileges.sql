-- title: new objects in schema public are granted to anon, authenticated and service_role
-- modes: fresh
-- requires: roles
-- without: every new table needs its own GRANT before clients see it
-- remedy: ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;

-- As in a Supabase project: grants open the door of the schema, row level security decides who
-- passes. Default privileges hold for tables made by the roles named here: whoever runs this, and
-- the owner of the database. Tables that exist already keep the grants they have.
do $body$
declare
  maker text;
begin
  for maker in
    select r.rolname from pg_catalog.pg_roles r
     where r.rolname = current_user
        or (r.oid = (select d.datdba from pg_catalog.pg_database d
                      where d.datname = pg_catalog.current_database())
            and pg_catalog.pg_has_role(current_user, r.oid, 'USAGE'))
  loop
    execute pg_catalog.format('alter default privileges for role %I in schema public'
      ' grant all on tables to anon, authenticated, service_role', maker);
    execute pg_catalog.format('alter default privileges for role %I in schema public'
      ' grant all on sequences to anon, authenticated, service_role', maker);
    execute pg_catalog.format('alter default privileges for role %I in schema public'
      ' grant all on routines to anon, authenticated, service_role', maker);
  end loop;
end
$body$;
