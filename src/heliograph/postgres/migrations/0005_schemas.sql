-- title: schemas auth, realtime and extensions
-- modes: fresh
-- requires: create_in_database, roles
-- essential: yes
-- without: policies can not call auth.uid()
-- remedy: GRANT CREATE ON DATABASE {database} TO {user};

create schema if not exists auth;
create schema if not exists realtime;
create schema if not exists extensions;

grant usage on schema auth, realtime, extensions to anon, authenticated, service_role;

-- PUBLIC has it in a new database; where it was revoked, the owner of `public` decides.
do $body$
begin
  if not (pg_catalog.has_schema_privilege('anon', 'public', 'USAGE')
          and pg_catalog.has_schema_privilege('authenticated', 'public', 'USAGE')
          and pg_catalog.has_schema_privilege('service_role', 'public', 'USAGE')) then
    grant usage on schema public to anon, authenticated, service_role;
  end if;
exception when insufficient_privilege then
  raise warning 'schema public: USAGE could not be granted to anon, authenticated, service_role';
end
$body$;
