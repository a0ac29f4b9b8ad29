-- A lease is (target, key range). Time is the database's; a generation that only grows fences a zombie.

-- Two ranges (above, upto] overlap, compared in the key's own type and collation. Null is open; a range that begins and
-- ends with one key is that key alone.
create or replace function catchup.overlaps(spec jsonb, types jsonb, above jsonb, upto jsonb, other_above jsonb, other_upto jsonb)
returns boolean language plpgsql stable security invoker set search_path = '' as $$
declare
    answer boolean;
begin
    execute format('select (%s) and (%s)',
        catchup.before_sql(spec, types, above, other_upto, above = upto),
        catchup.before_sql(spec, types, other_above, upto, other_above = other_upto)) into answer;
    return answer;
end $$;

drop function if exists catchup.before_sql(jsonb, jsonb, jsonb, jsonb);
create or replace function catchup.before_sql(spec jsonb, types jsonb, above jsonb, upto jsonb, is_one_key boolean default false) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    columns text;
    op text := case when is_one_key then '>=' else '>' end;
begin
    if above->>0 is null or upto->>0 is null then
        return 'true';
    end if;
    -- A row of one literal range under the column's own collation: text that sorts by locale must not be compared by bytes.
    select string_agg(format('%s%s as %I', catchup.literal(types->>k.name, upto->>(k.n - 1)::integer),
        coalesce((select format(' collate %I.%I', n.nspname, c.collname)
                  from pg_attribute a join pg_collation c on c.oid = a.attcollation
                  join pg_namespace n on n.oid = c.collnamespace
                  where a.attrelid = to_regclass(format('%I.%I', spec->>'schema', spec->>'table')) and a.attname = k.name), ''),
        k.name), ', ' order by k.n)
    into columns from jsonb_array_elements_text(spec->'key') with ordinality as k(name, n);
    return format('(select %s from (select %s) t)', catchup.beside_key_sql(spec, types, op, above), columns);
end $$;

create or replace function public.catchup_take_lease(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    shape jsonb := catchup.resolve(q->'spec');
    held catchup.leases;
    next_generation bigint;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    insert into catchup.targets (target) values (q->>'target') on conflict (target) do nothing;
    perform 1 from catchup.targets g where g.target = q->>'target' for update;
    for held in select * from catchup.leases l where l.target = q->>'target' loop
        continue when not catchup.overlaps(q->'spec', shape->'types', q->'above', q->'upto', held.above, held.upto);
        -- Free: run out by the database's clock, proved dead by its own host, or ours already.
        -- (`is distinct from`, because nobody may be proved dead, and `not (null)` is not true.)
        if held.expires_at > clock_timestamp()
           and (held.run_id, held.generation) is distinct from (q->'dead'->>'run_id', (q->'dead'->>'generation')::bigint)
           and (held.run_id, held.home) is distinct from (q->>'run_id', q->'home') then
            return jsonb_build_object('held', jsonb_build_object('run_id', held.run_id, 'generation', held.generation,
                'home', held.home, 'seconds_left', extract(epoch from held.expires_at - clock_timestamp())));
        end if;
        -- Deleting waits for a page write under the old generation; a heartbeat does not (see catchup_write).
        delete from catchup.leases l where l.run_id = held.run_id;
    end loop;
    update catchup.targets g set generation = g.generation + 1 where g.target = q->>'target'
    returning g.generation into next_generation;
    delete from catchup.leases l where l.run_id = q->>'run_id';
    insert into catchup.leases (run_id, target, generation, above, upto, home, expires_at)
    values (q->>'run_id', q->>'target', next_generation, nullif(q->'above', 'null'), nullif(q->'upto', 'null'), q->'home',
        clock_timestamp() + make_interval(secs => (q->>'ttl_s')::float8));
    return jsonb_build_object('run_id', q->>'run_id', 'generation', next_generation);
end $$;

create or replace function public.catchup_beat(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    update catchup.leases l set expires_at = clock_timestamp() + make_interval(secs => (q->>'ttl_s')::float8)
    where l.run_id = q->>'run_id' and l.generation = (q->>'generation')::bigint;
    if not found then
        return jsonb_build_object('fenced', true);
    end if;
    return jsonb_build_object('cancel_asked',
        coalesce((select r.cancel_asked from catchup.runs r where r.run_id = q->>'run_id'), false));
end $$;

create or replace function public.catchup_release(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
begin
    delete from catchup.leases l
    where l.run_id = p::jsonb->0->>'run_id' and l.generation = (p::jsonb->0->>'generation')::bigint;
    return jsonb_build_object('ok', found);
end $$;
