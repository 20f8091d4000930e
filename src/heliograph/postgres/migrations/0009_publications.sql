-- title: publications supabase_realtime (yours) and heliograph_dependencies (the server's own)
-- modes: fresh
-- requires: create_in_database
-- essential: yes
-- without: no change can be read
-- remedy: GRANT CREATE ON DATABASE {database} TO {user};

-- Explicit lists, never FOR ALL TABLES: that would publish every secret and break UPDATE on tables
-- without a key. From PostgreSQL 18 on, stored generated columns can be published too.
do $body$
declare
  publication_name text;
  options text := $$publish = 'insert, update, delete, truncate', publish_via_partition_root = true$$;
begin
  if pg_catalog.current_setting('server_version_num')::int >= 180000 then
    options := options || ', publish_generated_columns = stored';
  end if;
  foreach publication_name in array array['supabase_realtime', 'heliograph_dependencies'] loop
    if not exists (select from pg_catalog.pg_publication p where p.pubname = publication_name) then
      execute pg_catalog.format('create publication %I with (%s)', publication_name, options);
    end if;
  end loop;
end
$body$;
