-- title: private schema with the ledger of migrations and the server's secret
-- modes: fresh, attach
-- requires: create_in_database
-- essential: yes
-- without: nothing can be installed
-- remedy: GRANT CREATE ON DATABASE {database} TO {user};

create schema heliograph;
comment on schema heliograph is 'Private to the Heliograph server; no other role has rights here.';
revoke all on schema heliograph from public;

create table heliograph.migrations (
  version integer primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default pg_catalog.now()
);
comment on table heliograph.migrations is 'Which migrations of Heliograph this database has had.';

-- Messages in the WAL that steer the server carry this secret: any role may emit messages.
create table heliograph.server_secret (
  single boolean primary key default true check (single),
  secret text not null check (secret <> '')
);
comment on table heliograph.server_secret is
  'Authenticates messages to the server. Whoever reads it can forge them.';
insert into heliograph.server_secret (secret)
  select pg_catalog.replace(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', '');

-- No policy exists, so that even a careless GRANT shows nothing; the owner passes.
alter table heliograph.server_secret enable row level security;

-- ALTER DEFAULT PRIVILEGES may have granted rights on them at once.
do $body$
declare
  grantee_name text;
begin
  for grantee_name in
    select distinct case when a.grantee = 0 then 'public'
                         else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end
      from pg_catalog.pg_class c cross join lateral pg_catalog.aclexplode(c.relacl) a
     where c.relnamespace = 'heliograph'::pg_catalog.regnamespace and a.grantee <> c.relowner
  loop
    execute 'revoke all on heliograph.migrations, heliograph.server_secret from ' || grantee_name;
  end loop;
end
$body$;
