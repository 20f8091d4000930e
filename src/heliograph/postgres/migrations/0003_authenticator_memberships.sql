-- title: authenticator may become anon, authenticated and service_role
-- modes: fresh
-- requires: roles, grant_memberships
-- ensures: memberships
-- without: the Data API can not act as its callers; live changes do not need it
-- remedy: GRANT anon, authenticated, service_role TO authenticator;

do $body$
declare
  role_name text;
begin
  foreach role_name in array array['anon', 'authenticated', 'service_role'] loop
    if not pg_catalog.pg_has_role('authenticator', role_name, 'MEMBER') then
      execute pg_catalog.format('grant %I to authenticator', role_name);
    end if;
  end loop;
end
$body$;
