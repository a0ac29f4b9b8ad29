-- One page of results with its exceptions, its money and its checkpoint: all true in one transaction, or nothing is.

-- The incoming rows, typed: i, the key, the guard, cells[0] as it was (was), every cell as text (c1, c2, ...).
create or replace function catchup.incoming_sql(spec jsonb, types jsonb, cells jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select format('select (e.n - 1)::integer as i, %s, (e.v->>''guard'')::uuid as guard, e.v->''was''->>%L as was%s '
        'from jsonb_array_elements($1) with ordinality as e(v, n)',
        catchup.incoming_key_sql(spec, types, 'e.v->''key'''), spec->'cells'->>0,
        coalesce(string_agg(format(', e.v->''cells''->>%L as c%s', name, n), '' order by n), ''))
    from jsonb_array_elements_text(cells) with ordinality as c(name, n)
$$;

-- The guard and the old cell stand in UPDATE's own WHERE on the target row: only there does READ COMMITTED check them
-- again when another transaction changed the row while we waited for it. In a CTE before it they would be stale.
-- With `null_keeps` a null leaves what is there, and a row that has all of it already is not written again.
create or replace function catchup.update_cells(spec jsonb, shape jsonb, cells jsonb, rows jsonb) returns integer[]
language plpgsql volatile security invoker set search_path = '' as $$
declare
    keeps boolean;
    sets text;
    differs text;
    n_rows integer;
    n_keys integer;
    hit integer[];
begin
    keeps := coalesce((spec->>'null_keeps')::boolean, false);
    select string_agg(format('%I = %s', name, value), ', ' order by n),
        format('(%s) is distinct from (%s)', string_agg(format('t.%I', name), ', ' order by n), string_agg(value, ', ' order by n))
    into sets, differs
    from (select name, n, case when keeps then format('coalesce(b.c%s::%s, t.%I)', n, shape->'types'->>name, name)
              else format('b.c%s::%s', n, shape->'types'->>name) end as value
          from jsonb_array_elements_text(cells) with ordinality as c(name, n)) v;
    execute format('with b as materialized (%s), done as (update %s as t set %s from b where %s and %s = b.guard '
        'and t.%I::text is not distinct from b.was and %s returning b.i) '
        'select count(*), count(distinct i), coalesce(array_agg(i), ''{}'') from done',
        catchup.incoming_sql(spec, shape->'types', cells), shape->>'rel', sets, catchup.same_key_sql(spec, shape->'types'),
        catchup.guard_sql(spec, catchup.joined_sql(spec)), spec->'cells'->>0, case when keeps then differs else 'true' end)
    into n_rows, n_keys, hit using rows;
    -- Not an outcome but a broken promise, so it rolls back: the declared key is no key.
    if n_rows <> n_keys then
        raise exception 'key (%) of % is not unique', spec->>'key', shape->>'rel' using errcode = 'cardinality_violation';
    end if;
    return hit;
end $$;

-- A target without cells writes nothing into the table: its rows only have to be as they were read. No row is locked,
-- since one that is edited a moment later would not be as it was read either.
create or replace function catchup.find_unchanged(spec jsonb, shape jsonb, rows jsonb) returns integer[]
language plpgsql stable security invoker set search_path = '' as $$
declare
    hit integer[];
begin
    execute format('with b as materialized (%s) select coalesce(array_agg(b.i), ''{}'') from b join %s t on %s where %s = b.guard',
        catchup.incoming_sql(spec, shape->'types', '[]'), shape->>'rel', catchup.same_key_sql(spec, shape->'types'),
        catchup.guard_sql(spec, catchup.joined_sql(spec)))
    into hit using rows;
    return hit;
end $$;

-- Why the others were left alone: {"3": "gone", "7": "ours", ...}. `ours` is a value already there, so it counts as wrote.
create or replace function catchup.explain_rest(spec jsonb, shape jsonb, cells jsonb, rows jsonb, hit integer[]) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    proof text := spec->'cells'->>0;
    ours text;
    filled text := case when proof is null then 'false' else format('t.%I::text is distinct from b.was', proof) end;
    why jsonb;
begin
    select format('t.%I::text is not distinct from b.c%s::%s::text', name, n, shape->'types'->>name) into ours
    from jsonb_array_elements_text(cells) with ordinality as c(name, n) where name = proof;
    execute format('with b as materialized (%s) select coalesce(jsonb_object_agg(b.i, case '
        'when t.%I is null then ''gone'' when %s then ''ours'' when %s then ''filled'' '
        'when %s <> b.guard then ''edited'' else ''kept'' end), ''{}''::jsonb) '
        'from b left join %s t on %s where b.i <> all ($2)',
        catchup.incoming_sql(spec, shape->'types', cells), spec->'key'->>0, coalesce(ours, 'false'), filled,
        catchup.guard_sql(spec, catchup.joined_sql(spec)), shape->>'rel', catchup.same_key_sql(spec, shape->'types'))
    into why using rows, hit;
    return why;
end $$;

-- Exceptions stand, and a row that was written loses its old one; provenance says what wrote it, from which text. Of a row
-- that had changed meanwhile it says so too if its vectors lie elsewhere: there they are, from the text that it had then,
-- and whoever embeds it next must know up to how many parts.
create or replace function catchup.note_rows(q jsonb, wrote integer[]) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    source integer;
    of_target integer;
begin
    perform catchup.settle_batch_rows(q, wrote);
    delete from catchup.verdicts v using jsonb_array_elements(q->'rows') with ordinality as e(row, n)
    where v.target = q->>'target' and v.key = (e.row->'key')::text and (e.n - 1)::integer = any (wrote);
    insert into catchup.verdicts (target, key, fingerprint, guard, state, reason, detail, run_id)
    select distinct on (e.v->'key') q->>'target', (e.v->'key')::text, q->>'fingerprint', (e.v->>'guard')::uuid,
        e.v->>'state', e.v->>'reason', e.v->>'detail', q->>'run_id'
    from jsonb_array_elements(q->'verdicts') with ordinality as e(v, n) order by e.v->'key', e.n desc
    on conflict (target, key) do update set fingerprint = excluded.fingerprint, guard = excluded.guard,
        state = excluded.state, reason = excluded.reason, detail = excluded.detail, run_id = excluded.run_id, at = now();
    if (cardinality(wrote) = 0 and q->'changed' = '{}') or (q->>'model' = '' and q->>'prompt_hash' = '') then
        return;
    end if;
    select g.target_no into of_target from catchup.targets g where g.target = q->>'target';
    insert into catchup.sources (target_no, run_id, prompt_hash, model)
    values (of_target, q->>'run_id', q->>'prompt_hash', q->>'model') on conflict do nothing;
    select s.source_no into source from catchup.sources s
    where (s.target_no, s.run_id, s.prompt_hash, s.model) = (of_target, q->>'run_id', q->>'prompt_hash', q->>'model');
    insert into catchup.provenance (target_no, key, guard, source_no, parts)
    select distinct on (r.key) of_target, r.key, (r.v->>'guard')::uuid, source,
        greatest((r.v->>'parts')::integer, 1, case when q->'changed' ? r.i::text then (select p.parts
            from catchup.provenance p where p.target_no = of_target and p.key = r.key) end)
    from (select e.v, (e.n - 1)::integer as i, (e.v->'key')::text collate "C" as key
          from jsonb_array_elements(q->'rows') with ordinality as e(v, n)) r
    left join unnest(wrote) as w(i) using (i)
    where w.i is not null or ((r.v->>'elsewhere')::boolean and q->'changed' ? r.i::text)
    order by r.key
    on conflict (target_no, key) do update set guard = excluded.guard, source_no = excluded.source_no,
        parts = excluded.parts;
end $$;

-- The run's counters grow; what the database itself found out (wrote, changed, gone) it also counts itself.
create or replace function catchup.note_run(q jsonb, found_out jsonb) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
declare
    spend jsonb := q->'spend';
    cancel boolean;
begin
    perform catchup.open_windows();
    update catchup.checkpoints c set key = coalesce(nullif(q->'checkpoint', 'null'), c.key),
        unconfirmed = (q->>'unconfirmed')::integer, unconfirmed_usd = (q->>'unconfirmed_usd')::numeric, updated_at = now()
    where c.run_id = q->>'run_id';
    update catchup.runs r set
        books = catchup.add_counts(catchup.add_counts(r.books, q->'books'), found_out),
        calls = r.calls + (spend->>'calls')::bigint,
        tokens_in = r.tokens_in + (spend->>'tokens_in')::bigint, tokens_out = r.tokens_out + (spend->>'tokens_out')::bigint,
        spent_usd = r.spent_usd + (spend->>'usd')::numeric, possibly_usd = r.possibly_usd + (spend->>'possibly_usd')::numeric,
        updated_at = now()
    where r.run_id = q->>'run_id' returning r.cancel_asked into cancel;
    return coalesce(cancel, false);
end $$;

create or replace function catchup.add_counts(a jsonb, b jsonb) returns jsonb
language sql immutable security invoker set search_path = '' as $$
    select coalesce(jsonb_object_agg(name, coalesce((a->>name)::bigint, 0) + coalesce((b->>name)::bigint, 0)), '{}')
    from (select distinct jsonb_object_keys(a || b) as name) names
$$;

-- Before anything is written: the outcome, if this batch was written before, or why it may not be; null where it may.
create or replace function catchup.begin_write(q jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    spec jsonb := q->'spec';
    shape jsonb;
    result jsonb;
    undeclared jsonb;
begin
    select w.outcome into result from catchup.writes w where w.write_id = q->>'write_id';
    if found then
        return result || jsonb_build_object('repeated', true);
    end if;
    -- FOR KEY SHARE lets heartbeats pass (they change no key) and makes a takeover (a delete) wait until we are through.
    perform 1 from catchup.leases l
    where l.run_id = q->>'run_id' and l.generation = (q->>'generation')::bigint for key share;
    if not found then
        return jsonb_build_object('fenced', true);
    end if;
    select jsonb_agg(name) into undeclared from jsonb_array_elements_text(q->'cells') as c(name)
    where not exists (select 1 from catchup.cells r where (r.target, r.table_schema, r.table_name, r.cell)
        = (q->>'target', spec->>'schema', spec->>'table', name));
    if undeclared is not null then
        return jsonb_build_object('undeclared', undeclared);
    end if;
    shape := catchup.resolve(spec);
    if shape ? 'problem' then
        return shape;
    end if;
    insert into catchup.writes (write_id, run_id) values (q->>'write_id', q->>'run_id') on conflict do nothing;
    if not found then
        select w.outcome || '{"repeated": true}' into result from catchup.writes w where w.write_id = q->>'write_id';
        return result;
    end if;
    return null;
end $$;

-- The rows into their cells: which were written, and what became of the others.
create or replace function catchup.put_rows(q jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    wrote integer[] := '{}';
    why jsonb := '{}';
begin
    if jsonb_array_length(q->'rows') > 0 then
        wrote := case when spec->'cells' = '[]' then catchup.find_unchanged(spec, shape, q->'rows')
            else catchup.update_cells(spec, shape, q->'cells', q->'rows') end;
        if cardinality(wrote) < jsonb_array_length(q->'rows') then
            why := catchup.explain_rest(spec, shape, q->'cells', q->'rows', wrote);
        end if;
        -- A message that is out counts, whatever its worker has made of the row meanwhile.
        select coalesce(jsonb_object_agg(key, case when (q->'rows'->key::integer->>'sent')::boolean then 'ours' else value end), '{}')
        into why from jsonb_each_text(why);
        wrote := wrote || array(select key::integer from jsonb_each_text(why) where value = 'ours');
    end if;
    return jsonb_build_object('wrote', to_jsonb(wrote), 'total', jsonb_array_length(q->'rows'),
        'gone', (select coalesce(jsonb_agg(key::integer), '[]') from jsonb_each_text(why) where value = 'gone'),
        'changed', (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each_text(why) where value not in ('ours', 'gone')));
end $$;

-- Exceptions, provenance and books, and the outcome itself, in the same transaction. `more` is counted with the rest.
create or replace function catchup.end_write(q jsonb, put jsonb, more jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    wrote integer[] := array(select jsonb_array_elements_text(put->'wrote')::integer);
    result jsonb;
begin
    perform catchup.note_rows(q || jsonb_build_object('changed', put->'changed'), wrote);
    result := put || jsonb_build_object('cancel_asked', catchup.note_run(q, more || jsonb_build_object(
        'wrote', cardinality(wrote), 'gone', jsonb_array_length(put->'gone'),
        'changed', (select count(*) from jsonb_object_keys(put->'changed')))));
    update catchup.writes w set outcome = result where w.write_id = q->>'write_id';
    return result || catchup.took_ms();
end $$;

create or replace function public.catchup_write(p text) returns jsonb
language plpgsql volatile security invoker
set search_path = '' set lock_timeout = '5s' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    q jsonb := p::jsonb->0;
begin
    return coalesce(catchup.begin_write(q), catchup.end_write(q, catchup.put_rows(q), '{}'));
end $$;
