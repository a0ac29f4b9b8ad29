-- Where a video is, as its workers say it: moved only from where it is expected to be, and never once it is done.

-- One row. `moved` is false where it was not in one of the statuses it may be moved from, or is done already; asked again
-- after a lost answer it says so, and status and flag tell the caller what is true.
create or replace function public.catchup_move_status(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    status text := spec->'cells'->>0;
    said text := spec->'cells'->>1;
    done text := spec->'read'->>0;
    undeclared jsonb;
    before text;
    moved integer;
    found jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    select jsonb_agg(name) into undeclared from jsonb_array_elements_text(spec->'cells') as c(name)
    where not exists (select 1 from catchup.cells r where (r.target, r.table_schema, r.table_name, r.cell)
        = (q->>'target', spec->>'schema', spec->>'table', name));
    if undeclared is not null then
        return jsonb_build_object('undeclared', undeclared);
    end if;
    execute format('with b as (select %s) select t.%I::text from %s t, b where %s for no key update of t',
        catchup.incoming_key_sql(spec, shape->'types', '$1'), status, shape->>'rel', catchup.same_key_sql(spec, shape->'types'))
    into before using q->'key';
    execute format('with b as (select %s) update %s t set %I = %s, %I = $2 from b where %s and t.%I::text = any ($3) and (t.%I is not true or not $4)',
        catchup.incoming_key_sql(spec, shape->'types', '$1'), shape->>'rel', status,
        catchup.literal(shape->'types'->>status, q->>'to'), said, catchup.same_key_sql(spec, shape->'types'), status, done)
    using q->'key', q->>'said', array(select jsonb_array_elements_text(q->'from')), (q->>'unless_done')::boolean;
    get diagnostics moved = row_count;
    execute format('with b as (select %s) select jsonb_build_object(''status'', t.%I::text, ''done'', t.%I is true) from %s t, b where %s',
        catchup.incoming_key_sql(spec, shape->'types', '$1'), status, done, shape->>'rel', catchup.same_key_sql(spec, shape->'types'))
    into found using q->'key';
    return coalesce(found, '{"status": null, "done": false}') || jsonb_build_object('moved', moved > 0, 'before', before);
end $$;
