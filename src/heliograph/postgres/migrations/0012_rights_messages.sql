-- title: event triggers that tell the server in commit order when policies, grants or tables change
-- modes: fresh
-- requires: superuser
-- without: changes of rights are found by comparing a fingerprint of the catalog with every judgement, and compiled policies stay off
-- remedy: run `heliograph migrate` once as a superuser

-- SECURITY DEFINER: whoever runs DDL has no right to read the secret or to emit messages.
-- It must never fail, because that would abort the DDL of somebody else: it reads two catalogs and
-- one table of ours, and does nothing where that table is gone.
create function heliograph.emit_rights_message() returns event_trigger
language plpgsql security definer set search_path = '' as $body$
declare
  message_secret text;
  changed jsonb := '[]';
  -- More objects than this (an extension, a dropped schema) are not listed; "complete" is false.
  objects_max constant int := 100;
begin
  if pg_catalog.to_regclass('heliograph.server_secret') is null then
    return;
  end if;
  select s.secret into message_secret from heliograph.server_secret s;
  if message_secret is null then
    return;
  end if;

  if tg_event = 'sql_drop' then
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
             'class', o.object_type, 'oid', o.objid::bigint, 'schema', o.schema_name,
             'identity', o.object_identity, 'relation', o.relation)), '[]')
      into changed
      from (select d.object_type, d.objid, d.schema_name, d.object_identity,
                   case when d.object_type in ('table', 'table column', 'view', 'materialized view',
                                               'foreign table')
                          then d.objid::bigint
                        when d.object_type = 'policy'
                          then pg_catalog.to_regclass(pg_catalog.format(
                                 '%I.%I', d.address_names[1], d.address_names[2]))::oid::bigint
                   end as relation
              from pg_catalog.pg_event_trigger_dropped_objects() d
             where not d.is_temporary
               and d.object_type in (
                 'aggregate', 'cast', 'extension', 'foreign table', 'function', 'index',
                 'materialized view', 'operator', 'policy', 'procedure', 'publication',
                 'publication namespace', 'publication relation', 'rule', 'schema', 'table',
                 'table column', 'table constraint', 'type', 'view')
               and d.schema_name is distinct from 'pg_toast'
             limit objects_max + 1) o;
    if changed = '[]' then
      return;
    end if;
  else
    -- GRANT and REVOKE come without oid and identity: only the class of the objects is known.
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
             'class', pg_catalog.lower(o.object_type), 'oid', o.objid::bigint,
             'schema', o.schema_name, 'identity', o.object_identity, 'relation', o.relation)), '[]')
      into changed
      from (select c.object_type, c.objid, c.schema_name, c.object_identity,
                   case when c.object_type in ('table', 'table column', 'view', 'materialized view',
                                               'foreign table')
                          then c.objid::bigint
                        when c.object_type = 'policy'
                          then (select p.polrelid::bigint from pg_catalog.pg_policy p
                                 where p.oid = c.objid)
                        when c.object_type = 'publication relation'
                          then (select r.prrelid::bigint from pg_catalog.pg_publication_rel r
                                 where r.oid = c.objid)
                   end as relation
              from pg_catalog.pg_event_trigger_ddl_commands() c
             where c.schema_name is distinct from 'pg_temp'
             limit objects_max + 1) o;
    -- Nothing but temporary objects: nobody's rights changed. DROP OWNED lists nothing and revokes.
    if changed = '[]' and tg_tag <> 'DROP OWNED' then
      return;
    end if;
  end if;

  perform pg_catalog.pg_logical_emit_message(
    true,
    'heliograph.rights',
    message_secret || ' ' || case
      when pg_catalog.jsonb_array_length(changed) > objects_max then
        pg_catalog.jsonb_build_object('tag', tg_tag, 'objects', '[]'::jsonb, 'complete', false)::text
      else
        pg_catalog.jsonb_build_object(
          'tag', tg_tag, 'objects', changed,
          'complete', tg_tag not in ('GRANT', 'REVOKE', 'DROP OWNED', 'ALTER DEFAULT PRIVILEGES')
        )::text
    end
  );
end
$body$;
comment on function heliograph.emit_rights_message() is
  'Emits a transactional message for each command that may change who sees what.';
revoke all on function heliograph.emit_rights_message() from public;

-- REASSIGN OWNED, role commands and role memberships fire no event trigger: the server's
-- fingerprint of the catalog finds those.
create event trigger heliograph_rights_changed on ddl_command_end
  when tag in (
    'ALTER AGGREGATE', 'ALTER DEFAULT PRIVILEGES', 'ALTER DOMAIN', 'ALTER EXTENSION',
    'ALTER FUNCTION', 'ALTER MATERIALIZED VIEW', 'ALTER POLICY', 'ALTER PROCEDURE',
    'ALTER PUBLICATION', 'ALTER ROUTINE', 'ALTER RULE', 'ALTER SCHEMA', 'ALTER TABLE', 'ALTER TYPE',
    'ALTER VIEW', 'CREATE AGGREGATE', 'CREATE CAST', 'CREATE EXTENSION', 'CREATE FUNCTION',
    'CREATE OPERATOR', 'CREATE POLICY', 'CREATE PROCEDURE', 'CREATE PUBLICATION', 'CREATE RULE',
    'CREATE SCHEMA', 'CREATE TABLE', 'CREATE VIEW', 'DROP OWNED', 'GRANT',
    'REFRESH MATERIALIZED VIEW', 'REVOKE')
  execute function heliograph.emit_rights_message();

create event trigger heliograph_rights_dropped on sql_drop
  execute function heliograph.emit_rights_message();

-- Also in sessions that set session_replication_role = replica, such as restores.
alter event trigger heliograph_rights_changed enable always;
alter event trigger heliograph_rights_dropped enable always;
