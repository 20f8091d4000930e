-- title: functions auth.uid, auth.role, auth.email and auth.jwt
-- modes: fresh
-- requires: create_in_database, roles
-- essential: yes
-- without: policies can not ask who the caller is
-- remedy: GRANT CREATE ON DATABASE {database} TO {user};

-- No SET clause: it would keep PostgreSQL from inlining them, and they name all they use in full.
create or replace function auth.uid() returns uuid language sql stable as $body$
  select coalesce(
    nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
    nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'sub'
  )::pg_catalog.uuid
$body$;
comment on function auth.uid() is 'The caller''s user id: claim "sub" of the token.';

create or replace function auth.role() returns text language sql stable as $body$
  select coalesce(
    nullif(pg_catalog.current_setting('request.jwt.claim.role', true), ''),
    nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'role'
  )::pg_catalog.text
$body$;
comment on function auth.role() is 'Claim "role" of the caller''s token.';

create or replace function auth.email() returns text language sql stable as $body$
  select coalesce(
    nullif(pg_catalog.current_setting('request.jwt.claim.email', true), ''),
    nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'email'
  )::pg_catalog.text
$body$;
comment on function auth.email() is 'Claim "email" of the caller''s token.';

create or replace function auth.jwt() returns jsonb language sql stable as $body$
  select coalesce(
    nullif(pg_catalog.current_setting('request.jwt.claim', true), ''),
    nullif(pg_catalog.current_setting('request.jwt.claims', true), '')
  )::pg_catalog.jsonb
$body$;
comment on function auth.jwt() is 'All claims of the caller''s token.';

grant execute on function auth.uid(), auth.role(), auth.email(), auth.jwt()
  to anon, authenticated, service_role;
