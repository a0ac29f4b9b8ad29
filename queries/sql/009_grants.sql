-- Nobody but the two roles may call or read anything here, and neither may change what cells are registered.
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
        execute format('alter table catchup.%I enable row level security', one.relname);
        execute format('revoke all on catchup.%I from public', one.relname);
        foreach role_name in array array['service_role', 'catchup_worker'] loop
            continue when not exists (select 1 from pg_roles where rolname = role_name);
            execute format('grant usage on schema catchup to %I', role_name);
            execute format('grant select%s on catchup.%I to %I',
                case when one.relname in ('cells', 'meta') then '' else ', insert, update, delete' end, one.relname, role_name);
            execute format('drop policy if exists %I on catchup.%I', 'for ' || role_name, one.relname);
            execute format('create policy %I on catchup.%I to %I using (true) with check (true)',
                'for ' || role_name, one.relname, role_name);
        end loop;
    end loop;
end $$;
notify pgrst, 'reload schema';
