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

-- The model that a place of vectors belongs to: whoever writes there first says so, everyone after is told.
create or replace function public.catchup_claim_place(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    insert into catchup.places (place, model, dimensions, target)
    values (q->>'place', q->>'model', (q->>'dimensions')::integer, q->>'target') on conflict (place) do nothing;
    return public.catchup_place(p);
end $$;

create or replace function public.catchup_place(p text) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce((select jsonb_build_object('model', l.model, 'dimensions', l.dimensions, 'target', l.target)
        from catchup.places l where l.place = p::jsonb->0->>'place'), '{"model": null}'::jsonb)
$$;

insert into catchup.meta (version) values (2)
on conflict (only_row) do update set version = excluded.version, migrated_at = now();
