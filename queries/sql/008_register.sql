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

-- A target moves on to the place that was filled beside it: the two change names, so that the ledger of each stays what
-- it is, whatever its size. Repeatable; the way back is the same, with the places the other way round. Taking a lease
-- goes through the same row locks, and an unfinished run would bring what it paid for to the wrong place.
create or replace function public.catchup_switch_target(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    pair text[] := array[q->>'target', q->>'filled'];
    filled_no integer;
    target_no_now integer;
    busy text;
begin
    perform 1 from catchup.targets g where g.target = any (pair) order by g.target for update;
    if (select l.target from catchup.places l where l.place = q->>'place') = q->>'target' then
        return jsonb_build_object('switched', false);
    end if;
    select l.run_id into busy from catchup.leases l where l.target = any (pair) and l.expires_at > clock_timestamp() limit 1;
    if busy is null then
        select r.run_id into busy from catchup.runs r where r.target = any (pair) and r.state in ('running', 'stopped') limit 1;
    end if;
    if busy is not null then
        return jsonb_build_object('busy', busy);
    end if;
    select g.target_no into filled_no from catchup.targets g where g.target = q->>'filled';
    select g.target_no into target_no_now from catchup.targets g where g.target = q->>'target';
    if filled_no is null then
        return jsonb_build_object('problem', format('nothing was filled under %s', q->>'filled'));
    end if;
    delete from catchup.leases l where l.target = any (pair);
    update catchup.targets g set target = g.target || ' ' || g.target_no
    where g.target in (q->>'target', q->>'filled', q->>'left');
    update catchup.targets g set target = q->>'target',
        generation = (select max(m.generation) + 1 from catchup.targets m) where g.target_no = filled_no;
    update catchup.targets g set target = q->>'left' where g.target_no = target_no_now;
    update catchup.places l set target = q->>'target' where l.place = q->>'place';
    update catchup.places l set target = q->>'left' where l.place = q->>'left_place' and l.target = q->>'target';
    return jsonb_build_object('switched', true);
end $$;

insert into catchup.meta (version) values (3)
on conflict (only_row) do update set version = excluded.version, migrated_at = now();
