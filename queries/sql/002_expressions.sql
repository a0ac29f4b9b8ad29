-- Pieces of SQL text, each built in one place and used by every function that reads or writes a user's table.
-- Every name is quoted with %I, every value with %L and cast to its column's own type: `id::text = x` would not
-- use the index, and would order bigints as words. The user's table is always called t.

-- The columns a row is shown with: those that were read, and those beside them, which the guard leaves out.
create or replace function catchup.shown(spec jsonb) returns jsonb
language sql immutable security invoker set search_path = '' as $$
    select (spec->'read') || coalesce(spec->'beside', '[]')
$$;

-- How long this statement has kept the server busy. Our own waiting to read the answer is not the database's load.
create or replace function catchup.took_ms() returns jsonb
language sql volatile security invoker set search_path = '' as $$
    select jsonb_build_object('took_ms', extract(epoch from clock_timestamp() - statement_timestamp()) * 1000)
$$;

-- The table, its column types and what is missing, as one value. Type names are qualified because the
-- search_path is empty; the length is left off (-1) because a cast to varchar(5) cuts silently, an assignment does not.
create or replace function catchup.resolve(spec jsonb) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    rel regclass := to_regclass(format('%I.%I', spec->>'schema', spec->>'table'));
    joined_rel regclass := to_regclass(quote_ident(spec->>'schema') || '.' || quote_ident(spec->'joined'->>'table'));
    types jsonb;
    joined_types jsonb;
    missing text;
begin
    if rel is null then
        return jsonb_build_object('problem', format('table %I.%I does not exist', spec->>'schema', spec->>'table'));
    end if;
    select jsonb_object_agg(attname, format_type(atttypid, -1)) into types
    from pg_attribute where attrelid = rel and attnum > 0 and not attisdropped;
    select string_agg(distinct name, ', ') into missing
    from (
        select jsonb_array_elements_text((spec->'key') || catchup.shown(spec) || (spec->'cells')) as name
        union all select c->>'column' from jsonb_array_elements(spec->'pending') as c
        union all select jsonb_array_elements_text(spec->'filters')
    ) as named where not types ? name;
    if missing is not null then
        return jsonb_build_object('problem', format('table %s has no column %s', rel, missing));
    end if;
    if spec->'joined'->>'table' is not null then
        select jsonb_object_agg(attname, format_type(atttypid, -1)) into joined_types
        from pg_attribute where attrelid = joined_rel and attnum > 0 and not attisdropped;
        select string_agg(distinct name, ', ') into missing
        from (
            select jsonb_array_elements_text(spec->'joined'->'columns') as name
            union all select spec->'joined'->>'on' union all select spec->'joined'->>'order_by'
        ) as named where joined_types is null or not joined_types ? name;
        if missing is not null then
            return jsonb_build_object('problem', format('joined table %I.%I has no column %s',
                spec->>'schema', spec->'joined'->>'table', missing));
        end if;
    end if;
    return jsonb_build_object('rel', format('%I.%I', spec->>'schema', spec->>'table'), 'types', types);
end $$;

-- citext and its like bring operators of their own in another schema. With an empty search_path a bare `>` would
-- fall back to text's, disagree with ORDER BY (which follows the type), and lose rows between pages.
create or replace function catchup.operator_for(type_name text, op text) returns text
language sql stable security invoker set search_path = '' as $$
    select coalesce(
        (select format('operator(%I.%s)', n.nspname, o.oprname)
         from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
         where o.oprleft = type_name::regtype and o.oprright = type_name::regtype
           and o.oprname = op and n.nspname <> 'pg_catalog'
         limit 1),
        op)
$$;

create or replace function catchup.literal(type_name text, value text) returns text
language sql immutable security invoker set search_path = '' as $$ select format('%L::%s', value, type_name) $$;

-- The key as the ledger stores it: the JSON array of its texts.
create or replace function catchup.key_sql(spec jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select 'jsonb_build_array(' || string_agg(format('t.%I::text', name), ', ' order by n) || ')'
    from jsonb_array_elements_text(spec->'key') with ordinality as k(name, n)
$$;

create or replace function catchup.order_sql(spec jsonb, direction text) returns text
language sql stable security invoker set search_path = '' as $$
    select string_agg(format('t.%I %s', name, direction), ', ' order by n)
    from jsonb_array_elements_text(spec->'key') with ordinality as k(name, n)
$$;

-- `>` (after this key) or `<=` (up to it). Two columns are compared as a row, which one index range serves; written
-- out by hand only where a column's operators are not Postgres's own.
create or replace function catchup.beside_key_sql(spec jsonb, types jsonb, op text, key jsonb) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    a text := spec->'key'->>0;
    b text := spec->'key'->>1;
    x text := catchup.literal(types->>a, key->>0);
    y text := catchup.literal(types->>b, key->>1);
    beyond text := rtrim(op, '=');
begin
    if b is null then
        return format('t.%I %s %s', a, catchup.operator_for(types->>a, op), x);
    end if;
    if catchup.operator_for(types->>a, op) = op and catchup.operator_for(types->>b, op) = op then
        return format('row(t.%I, t.%I) %s row(%s, %s)', a, b, op, x, y);
    end if;
    return format('(t.%1$I %2$s %3$s and (t.%1$I %4$s %3$s or t.%5$I %6$s %7$s))',
        a, catchup.operator_for(types->>a, beyond || '='), x, catchup.operator_for(types->>a, beyond),
        b, catchup.operator_for(types->>b, op), y);
end $$;

create or replace function catchup.condition_sql(types jsonb, name text, op text, value text) returns text
language sql stable security invoker set search_path = '' as $$
    select case when op in ('is null', 'is not null', 'is true', 'is not true') then format('t.%I %s', name, op)
                when op in ('=', '<>', '<', '>') then format('t.%I %s %s', name,
                    catchup.operator_for(types->>name, op), catchup.literal(types->>name, value))
                else 'false' end
$$;

-- The rows of the joined table that belong to t, in order. Ties are broken by content: the guard must not flicker.
create or replace function catchup.joined_sql(spec jsonb) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    j jsonb := spec->'joined';
    pairs text;
begin
    if j->>'table' is null then
        return 'null::jsonb';
    end if;
    select string_agg(format('%L, j.%I', name, name), ', ' order by n) into pairs
    from jsonb_array_elements_text(j->'columns') with ordinality as c(name, n);
    return format('(select coalesce(jsonb_agg(jsonb_build_object(%1$s) order by j.%2$I, jsonb_build_object(%1$s)::text), '
        '''[]''::jsonb) from %3$I.%4$I j where j.%5$I = t.%6$I)',
        pairs, j->>'order_by', spec->>'schema', j->>'table', j->>'on', spec->'key'->>0);
end $$;

-- The guard: a hash of everything that was read. Page and write use this one expression, so that "still as it was
-- read" means the same in both. Not updated_at: our own jobs move that.
create or replace function catchup.guard_sql(spec jsonb, joined text) returns text
language sql stable security invoker set search_path = '' as $$
    select format('md5(jsonb_build_array(%s%s)::text)::uuid',
        (select string_agg(format('t.%I, ', name), '' order by n)
         from jsonb_array_elements_text(spec->'read') with ordinality as r(name, n)), joined)
$$;

create or replace function catchup.slice_sql(spec jsonb, types jsonb, above jsonb, upto jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select concat_ws(' and ', 'true',
        case when above->>0 is not null then catchup.beside_key_sql(spec, types, '>', above) end,
        case when upto->>0 is not null then catchup.beside_key_sql(spec, types, '<=', upto) end)
$$;

-- Rows that have a value, but an old one: by what wrote it, or because the text was edited since. `unmade` turns it round:
-- all but those that the ledger knows as made from this text, by this model, in this way.
-- A scalar subquery, not EXISTS: the planner may turn that into a join, and without fresh statistics of the ledger it
-- chose one that took 27 s for 100,000 rows (2026-11-21). This is one look into the primary key for a row.
create or replace function catchup.redo_sql(spec jsonb, types jsonb, of_target text, redo jsonb, guard text) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    target integer := (select g.target_no from catchup.targets g where g.target = of_target);
    cell text := case redo->>'by' when 'model' then nullif(redo->>'cell', '') end;
    says text := case redo->>'by'
        when 'model' then format('s.model = %L', redo->>'value')
        when 'prompt' then format('s.prompt_hash = %L', redo->>'value')
        when 'edited' then 'v.guard <> ' || guard
        when 'outdated' then format('(v.guard <> %s or s.model <> %L or s.prompt_hash <> %L)',
            guard, redo->>'value', redo->>'cell')
        when 'unmade' then format('(v.guard = %s and s.model = %L and s.prompt_hash = %L)',
            guard, redo->>'value', redo->>'cell')
        -- From the end of the run that sent it: a message is never taken for older than it is.
        when 'unsent' then format('(v.guard = %s and (%L = '''' or coalesce((select r.updated_at from catchup.runs r '
            'where r.run_id = s.run_id), s.at) > clock_timestamp() - make_interval(secs => nullif(%L, '''')::double precision)))',
            guard, redo->>'value', redo->>'value')
        else 'false' end;
    known text := format('coalesce((select %s from catchup.provenance v join catchup.sources s using (source_no) '
        'where v.target_no = %s and v.key = %s::text), false)', says, coalesce(target, 0), catchup.key_sql(spec));
begin
    if cell is not null then
        return format('(%s or %s)', catchup.condition_sql(types, cell, '=', redo->>'value'), known);
    end if;
    return case when redo->>'by' in ('unmade', 'unsent') then 'not ' else '' end || known;
end $$;

-- A flag that is false says as little as none.
create or replace function catchup.has_value_sql(spec jsonb, types jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select catchup.condition_sql(types, spec->'cells'->>0,
        case types->>(spec->'cells'->>0) when 'boolean' then 'is true' else 'is not null' end, null)
$$;

-- What wrote the row last, in how many parts, and whether its text is still the same: null where nobody of ours did.
create or replace function catchup.known_sql(q jsonb, guard text) returns text
language sql stable security invoker set search_path = '' as $$
    select case when (q->>'known')::boolean then format(
        '(select jsonb_build_array(s.model, s.prompt_hash, v.parts, v.guard = %s, s.run_id) from catchup.provenance v '
        'join catchup.sources s using (source_no) where v.target_no = %s and v.key = %s::text)',
        guard, coalesce((select g.target_no from catchup.targets g where g.target = q->>'target'), 0),
        catchup.key_sql(q->'spec')) else 'null::jsonb' end
$$;

-- The rows among which candidates are looked for: all of the slice, or so many of its first keys. Where candidates are
-- few and no index finds them, one statement must not walk the whole table. What waits in a queue is found by the index
-- of what is pending, and only the ledger's part of the question is dear.
create or replace function catchup.window_sql(q jsonb, shape jsonb, columns text) returns text
language sql stable security invoker set search_path = '' as $$
    select case when (q->>'window')::integer > 0 then format('(select %s from %s t where %s order by %s limit %s)',
        columns, shape->>'rel', concat_ws(' and ', catchup.slice_sql(q->'spec', shape->'types', q->'above', q->'upto'),
            case when q->'redo'->>'by' = 'unsent' then (
                select string_agg(catchup.condition_sql(shape->'types', c->>'column', c->>'op', c->>'value'), ' and ')
                from jsonb_array_elements(q->'spec'->'pending') as c) end),
        catchup.order_sql(q->'spec', 'asc'), (q->>'window')::integer) else shape->>'rel' end
$$;

-- What makes a row a candidate. A standing verdict on the same text, prompt and model excludes it: else cron's 50
-- would be the same 50 for ever.
create or replace function catchup.candidates_sql(q jsonb, types jsonb) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    spec jsonb := q->'spec';
    is_redo boolean := q->'redo'->>'by' is not null;
    guard text := catchup.guard_sql(spec, catchup.joined_sql(spec));
    parts text[] := array[catchup.slice_sql(spec, types, q->'above', q->'upto')];
    old text[] := array['true'];
    pending text[] := array['true'] || array(
        select catchup.condition_sql(types, c->>'column', c->>'op', c->>'value') from jsonb_array_elements(spec->'pending') as c);
begin
    parts := parts || array(
        select catchup.condition_sql(types, w->>0, '=', w->>1) from jsonb_array_elements(q->'where') as w);
    if jsonb_typeof(q->'among') = 'array' then
        parts := parts || format('t.%I %s any (%L::%s[])', spec->'key'->>0,
            catchup.operator_for(types->>(spec->'key'->>0), '='),
            array(select jsonb_array_elements_text(q->'among')), types->>(spec->'key'->>0));
    end if;
    if is_redo then
        old := old || array(
            select catchup.condition_sql(types, c->>'column', c->>'op', c->>'value')
            from jsonb_array_elements(spec->'pending') as c where not spec->'cells' ? (c->>'column'));
        if q->'redo'->>'by' not in ('any', 'unmade', 'unsent') then
            old := old || catchup.has_value_sql(spec, types);
        end if;
        if q->'redo'->>'by' <> 'any' then
            old := old || catchup.redo_sql(spec, types, q->>'target', q->'redo', guard);
        end if;
    end if;
    parts := parts || case
        when not is_redo then array_to_string(pending, ' and ')
        when (q->'redo'->>'and_pending')::boolean then
            format('((%s) or (%s))', array_to_string(pending, ' and '), array_to_string(old, ' and '))
        else coalesce(nullif(array_to_string(old, ' and '), ''), 'true') end;
    -- What is out in a batch is paid for already, or will be.
    if exists (select 1 from catchup.batch_rows o where o.target = q->>'target' and o.state = 'out') then
        parts := parts || format('coalesce((select false from catchup.batch_rows o where o.target = %L and o.state = ''out'' '
            'and o.key = %s::text), true)', q->>'target', catchup.key_sql(spec));
    end if;
    if not coalesce((q->>'retry_failed')::boolean, false) then
        -- A scalar subquery for the same reason; the guard is only computed where there is a verdict at all.
        parts := parts || format('coalesce((select v.guard <> %s from catchup.verdicts v where v.target = %L and '
            'v.key = %s::text and v.fingerprint = %L), true)',
            guard, q->>'target', catchup.key_sql(spec), q->>'fingerprint');
    end if;
    return array_to_string(parts, ' and ');
end $$;
