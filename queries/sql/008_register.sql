-- Registering a target: only the owner can, since nobody else may write catchup.cells.

create or replace function catchup.register(of_target text, spec jsonb) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    shape jsonb := catchup.resolve(spec);
begin
    if shape ? 'problem' then
        raise exception 'target %: %', of_target, shape->>'problem' using errcode = 'undefined_object';
    end if;
    -- A key that is not unique would write one answer into several rows.
    if not exists (
        select 1 from pg_index i where i.indrelid = to_regclass(shape->>'rel') and i.indisunique and i.indisvalid
          and i.indpred is null and i.indexprs is null
          and (select jsonb_agg(a.attname order by a.attname) from unnest(i.indkey::smallint[]) with ordinality as u(attnum, n)
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum where u.n <= i.indnkeyatts)
            = (select jsonb_agg(k order by k) from jsonb_array_elements_text(spec->'key') as k)) then
        raise exception 'target %: no unique index on (%) of %', of_target, spec->>'key', shape->>'rel'
            using errcode = 'undefined_object';
    end if;
    delete from catchup.cells c where c.target = of_target;
    insert into catchup.cells (target, table_schema, table_name, cell)
    select of_target, spec->>'schema', spec->>'table', name from jsonb_array_elements_text(spec->'cells') as name;
end $$;

insert into catchup.meta (version) values (2)
on conflict (only_row) do update set version = excluded.version, migrated_at = now();
