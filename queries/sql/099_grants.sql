-- Nobody but the two roles may call or read anything here, and neither may change what cells are registered or make a
-- space. It runs last: what is made before is closed here.

-- One table of ours, opened to the two roles that are there.
create or replace function catchup.admit_roles(of_table text) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    role_name text;
    place name := catchup.vector_schema();
begin
    execute format('alter table catchup.%I enable row level security', of_table);
    execute format('revoke all on catchup.%I from public', of_table);
    -- Default privileges may have given a new table to them.
    foreach role_name in array array['anon', 'authenticated'] loop
        if exists (select 1 from pg_roles where rolname = role_name) then
            execute format('revoke all on catchup.%I from %I', of_table, role_name);
        end if;
    end loop;
    foreach role_name in array array['service_role', 'catchup_worker'] loop
        continue when not exists (select 1 from pg_roles where rolname = role_name);
        execute format('grant usage on schema catchup to %I', role_name);
        -- Without it the types of a space or of a vector column have no name for the role. Only who owns it can say so.
        if place is not null and not has_schema_privilege(role_name, place, 'USAGE')
            and has_schema_privilege(place, 'USAGE WITH GRANT OPTION') then
            execute format('grant usage on schema %I to %I', place, role_name);
        end if;
        execute format('grant select%s on catchup.%I to %I',
            case when of_table in ('cells', 'meta', 'owned', 'spaces') then '' else ', insert, update, delete' end, of_table, role_name);
        execute format('drop policy if exists %I on catchup.%I', 'for ' || role_name, of_table);
        execute format('create policy %I on catchup.%I to %I using (true) with check (true)',
            'for ' || role_name, of_table, role_name);
    end loop;
end $$;

do $$
declare
    one record;
    role_name text;
begin
    for one in select p.oid::regprocedure as signature from pg_proc p join pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'catchup' or (n.nspname = 'public' and p.proname like 'catchup\_%') loop
        execute format('revoke all on function %s from public', one.signature);
        -- Supabase grants new functions in public to anon and authenticated by default privileges.
        foreach role_name in array array['anon', 'authenticated'] loop
            if exists (select 1 from pg_roles where rolname = role_name) then
                execute format('revoke all on function %s from %I', one.signature, role_name);
            end if;
        end loop;
        foreach role_name in array array['service_role', 'catchup_worker'] loop
            if exists (select 1 from pg_roles where rolname = role_name) then
                execute format('grant execute on function %s to %I', one.signature, role_name);
            end if;
        end loop;
    end loop;
    for one in select c.relname from pg_class c where c.relnamespace = 'catchup'::regnamespace and c.relkind = 'r' loop
        perform catchup.admit_roles(one.relname);
    end loop;
end $$;
notify pgrst, 'reload schema';
