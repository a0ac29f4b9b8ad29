-- A vector that lives in the user's own row: what the column is, and which rows are nearest.

create or replace function public.catchup_column_facts(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    rel regclass := to_regclass(format('%I.%I', q->>'schema', q->>'table'));
    place name := catchup.vector_schema();
    found_column record;
begin
    if place is null then
        return catchup.no_extension();
    end if;
    if rel is null then
        return jsonb_build_object('problem', format('table %I.%I does not exist', q->>'schema', q->>'table'));
    end if;
    select t.typname as kind, nullif(a.atttypmod, -1) as dimension, format_type(a.atttypid, a.atttypmod) as type,
        n.nspname = place and t.typname in ('vector', 'halfvec') as is_vector into found_column
    from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
    where a.attrelid = rel and a.attname = q->>'column' and a.attnum > 0 and not a.attisdropped;
    if not found then
        return jsonb_build_object('problem', format('table %s has no column %s', rel, q->>'column'));
    end if;
    if not found_column.is_vector then
        return jsonb_build_object('problem', format('column %s of %s is %s, not vector or halfvec', q->>'column', rel, found_column.type));
    end if;
    return jsonb_build_object('schema', q->>'schema', 'table', q->>'table', 'column', q->>'column', 'kind', found_column.kind,
        'dimension', found_column.dimension, 'hnsw', catchup.has_hnsw(rel, q->>'column'), 'extension_schema', place);
end $$;

create or replace function public.catchup_column_query(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    facts jsonb;
    undeclared text;
    matches jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    facts := public.catchup_column_facts(jsonb_build_array(spec || jsonb_build_object('column', q->>'column'))::text);
    if not facts ? 'kind' then
        return facts;
    end if;
    select string_agg(name, ', ') into undeclared
    from (select jsonb_array_elements_text(q->'show') as name union select w->>0 from jsonb_array_elements(q->'where') as w) n
    where not ((spec->'key') || catchup.shown(spec) || (spec->'cells') || (spec->'filters')) ? name;
    if undeclared is not null then
        return jsonb_build_object('problem', format('the target does not declare %s', undeclared));
    end if;
    perform catchup.widen_search((q->>'top')::integer);
    execute format('select coalesce(jsonb_agg(jsonb_build_object(''key'', %1$s, ''score'', 1 - t.catchup_distance, ''values'', %2$s) '
        'order by t.catchup_distance), ''[]'') from (select t.*, t.%3$I operator(%4$I.<=>) %5$L::%4$I.%6$I as catchup_distance '
        'from (select %7$s from %8$s t) t where %9$s and t.%3$I is not null '
        'order by t.%3$I operator(%4$I.<=>) %5$L::%4$I.%6$I limit %10$s) t',
        catchup.key_sql(spec), catchup.object_sql(q->'show', ''), q->>'column', facts->>'extension_schema', q->>'vector',
        facts->>'kind',
        -- Named columns, not the whole row: the least-privilege role may not read the rest.
        (select string_agg(distinct format('t.%I', name), ', ')
         from jsonb_array_elements_text((spec->'key') || catchup.shown(spec) || (spec->'cells') || (spec->'filters')
             || jsonb_build_array(q->>'column')) as c(name)),
        shape->>'rel',
        (select coalesce(string_agg(catchup.condition_sql(shape->'types', w->>0, '=', w->>1), ' and '), 'true')
         from jsonb_array_elements(q->'where') as w), (q->>'top')::integer)
    into matches;
    return jsonb_build_object('matches', matches);
end $$;
