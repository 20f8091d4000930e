-- title: own publications heliograph and heliograph_dependencies beside those of the project
-- modes: attach
-- requires: create_in_database
-- essential: yes
-- without: no change can be read
-- remedy: GRANT CREATE ON DATABASE {database} TO {user};

do $body$
declare
  publication_name text;
  options text := $$publish = 'insert, update, delete, truncate', publish_via_partition_root = true$$;
begin
  if pg_catalog.current_setting('server_version_num')::int >= 180000 then
    options := options || ', publish_generated_columns = stored';
  end if;
  foreach publication_name in array array['heliograph', 'heliograph_dependencies'] loop
    if not exists (select from pg_catalog.pg_publication p where p.pubname = publication_name) then
      execute pg_catalog.format('create publication %I with (%s)', publication_name, options);
    end if;
  end loop;
end
$body$;
