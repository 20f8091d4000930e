-- title: roles anon, authenticated, service_role and authenticator
-- modes: fresh
-- requires: roles
-- ensures: roles
-- essential: yes
-- without: nobody can be anybody: tokens name roles that do not exist
-- remedy: CREATE ROLE anon NOLOGIN NOINHERIT; CREATE ROLE authenticated NOLOGIN NOINHERIT; CREATE ROLE service_role NOLOGIN NOINHERIT; CREATE ROLE authenticator LOGIN NOINHERIT;

-- Roles belong to the whole cluster: another database may have made them, or be making them now.
do $body$
declare
  role_name text;
begin
  foreach role_name in array array['anon', 'authenticated', 'service_role', 'authenticator'] loop
    if pg_catalog.to_regrole(role_name) is null then
      begin
        execute pg_catalog.format(
          'create role %I %s noinherit', role_name,
          case when role_name = 'authenticator' then 'login' else 'nologin' end);
      exception when duplicate_object or unique_violation then
        null;
      end;
    end if;
  end loop;
end
$body$;
