-- title: only the server may emit messages into the WAL
-- modes: fresh
-- requires: superuser
-- without: any role may emit messages; those that steer the server still need its secret
-- remedy: run `heliograph migrate` once as a superuser

-- Every role may call these functions by default, as often as it likes, and each call is a message
-- that the server must read. The owner of the database keeps the right: the server may run as it.
do $body$
declare
  overload regprocedure;
  owner_name text;
begin
  select pg_catalog.pg_get_userbyid(d.datdba) into owner_name
    from pg_catalog.pg_database d where d.datname = pg_catalog.current_database();
  for overload in
    select p.oid from pg_catalog.pg_proc p
     where p.proname = 'pg_logical_emit_message'
       and p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
  loop
    execute pg_catalog.format('revoke execute on function %s from public', overload);
    execute pg_catalog.format('grant execute on function %s to %I', overload, owner_name);
  end loop;
end
$body$;
