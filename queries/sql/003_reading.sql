-- Everything here is STABLE: called by GET there and in a READ ONLY transaction here, it cannot write.
-- The settings make a text of a value the same in every session; the guard and `was` depend on that. No parallel
-- workers: a backfill must not take more of the application's machine than one process.

create or replace function public.catchup_page(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    needed text;
    rows jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    needed := catchup.needed_sql(q);
    execute format(
        'select coalesce(jsonb_agg(jsonb_build_object(''key'', %1$s, ''guard'', %2$s, ''values'', %3$s, ''was'', %4$s, '
        '''joined'', j.rows, ''known'', %11$s, ''due'', %12$s) order by %5$s), ''[]''::jsonb) '
        'from (select %6$s from %7$s t where %8$s order by %5$s limit %9$s) t cross join lateral (select %10$s as rows) j',
        catchup.key_sql(spec), catchup.guard_sql(spec, 'j.rows'),
        catchup.object_sql(catchup.shown(spec), ''), catchup.object_sql(spec->'cells', '::text'),
        catchup.order_sql(spec, 'asc'), needed, catchup.window_sql(q, shape, needed), catchup.candidates_sql(q, shape->'types'),
        (q->>'limit')::integer, catchup.joined_sql(spec), catchup.known_sql(q, catchup.guard_sql(spec, 'j.rows')),
        catchup.due_sql(q, shape->'types'))
    into rows;
    return jsonb_build_object('rows', rows, 'last', catchup.window_end(q, shape)) || catchup.took_ms();
end $$;

-- Whether a row is still to do by those of the target's conditions that look at its cells: what a run selects by.
create or replace function catchup.due_sql(q jsonb, types jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select case when (q->>'known')::boolean then format('coalesce(%s, false)', coalesce((
        select string_agg(catchup.condition_sql(types, c->>'column', c->>'op', c->>'value'), ' and ')
        from jsonb_array_elements(q->'spec'->'pending') as c where q->'spec'->'cells' ? (c->>'column')), 'false'))
        else 'false' end
$$;

-- Named columns, not t.*: the least-privilege role may not read the rest.
create or replace function catchup.needed_sql(q jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select string_agg(format('t.%I', name), ', ')
    from (
        select jsonb_array_elements_text((q->'spec'->'key') || catchup.shown(q->'spec') || (q->'spec'->'cells'))
        union select c->>'column' from jsonb_array_elements(q->'spec'->'pending') as c
        union select w->>0 from jsonb_array_elements(q->'where') as w
        union select case q->'redo'->>'by' when 'model' then nullif(q->'redo'->>'cell', '') end
    ) as c(name) where name is not null
$$;

-- The last key of the window; null where it reached the end, or there is none.
create or replace function catchup.window_end(q jsonb, shape jsonb) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    last jsonb;
begin
    if (q->>'window')::integer > 0 then
        execute format('select w.key from (select %s as key, row_number() over (order by %s) as n from %s t) w where w.n = %s',
            catchup.key_sql(q->'spec'), catchup.order_sql(q->'spec', 'asc'), catchup.window_sql(q, shape, (
                select string_agg(format('t.%I', name), ', ') from jsonb_array_elements_text(q->'spec'->'key') as k(name))),
            (q->>'window')::integer) into last;
    end if;
    return last;
end $$;

create or replace function catchup.object_sql(names jsonb, cast_to text) returns text
language sql stable security invoker set search_path = '' as $$
    select coalesce('jsonb_build_object(' || string_agg(format('%L, t.%I%s', name, name, cast_to), ', ' order by n) || ')',
        '''{}''::jsonb')
    from jsonb_array_elements_text(names) with ordinality as c(name, n)
$$;

-- Never count(*): at most `at_most` candidates are looked at.
create or replace function public.catchup_count(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    shape jsonb := catchup.resolve(q->'spec');
    n integer;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('select count(*) from (select 1 from %s t where %s limit %s) c',
        catchup.window_sql(q, shape, catchup.needed_sql(q)), catchup.candidates_sql(q, shape->'types'),
        (q->>'at_most')::integer) into n;
    return jsonb_build_object('count', n, 'last', catchup.window_end(q, shape)) || catchup.took_ms();
end $$;

create or replace function public.catchup_upper(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    key jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('select %s from %s t where %s order by %s limit 1', catchup.key_sql(spec), shape->>'rel',
        catchup.slice_sql(spec, shape->'types', q->'above', q->'upto'), catchup.order_sql(spec, 'desc')) into key;
    return jsonb_build_object('key', key);
end $$;

create or replace function public.catchup_read_back(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    rows jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('select coalesce(jsonb_agg(jsonb_build_object(''key'', b.key, ''cells'', %s)), ''[]''::jsonb) '
        'from (select e.v as key, %s from jsonb_array_elements($1) as e(v)) b join %s t on %s',
        catchup.object_sql(spec->'cells', '::text'), catchup.incoming_key_sql(spec, shape->'types', 'e.v'),
        shape->>'rel', catchup.same_key_sql(spec, shape->'types'))
    into rows using q->'keys';
    return jsonb_build_object('rows', rows);
end $$;

-- A key that comes in as JSON, cast to the columns' types: k1, k2.
create or replace function catchup.incoming_key_sql(spec jsonb, types jsonb, source text) returns text
language sql stable security invoker set search_path = '' as $$
    select string_agg(format('(%s->>%s)::%s as k%s', source, n - 1, types->>name, n), ', ' order by n)
    from jsonb_array_elements_text(spec->'key') with ordinality as k(name, n)
$$;

create or replace function catchup.same_key_sql(spec jsonb, types jsonb) returns text
language sql stable security invoker set search_path = '' as $$
    select string_agg(format('t.%I %s b.k%s', name, catchup.operator_for(types->>name, '='), n), ' and ' order by n)
    from jsonb_array_elements_text(spec->'key') with ordinality as k(name, n)
$$;

-- Handshake. Least privilege means that the database itself would refuse every cell that no target declares, and any
-- change of the registry. Cells of other targets on the same table are declared too.
create or replace function public.catchup_hello(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    rel regclass := to_regclass(quote_ident(q->>'schema') || '.' || quote_ident(q->>'table'));
    registered text[] := array(
        select c.cell from catchup.cells c
        where c.target = q->>'target' and (rel is null or (c.table_schema, c.table_name) = (q->>'schema', q->>'table'))
        order by c.cell);
    confined boolean;
begin
    select not (r.rolsuper or r.rolbypassrls) and not has_table_privilege('catchup.cells', 'INSERT, UPDATE, DELETE')
        and not exists (
            select 1 from pg_attribute a where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
              and not exists (select 1 from catchup.cells c
                  where (c.table_schema, c.table_name, c.cell) = (q->>'schema', q->>'table', a.attname))
              and has_column_privilege(rel, a.attnum, 'UPDATE'))
    into confined from pg_roles r where r.rolname = current_user;
    return jsonb_build_object('version', (select m.version from catchup.meta m), 'role', current_user,
        'cells', to_jsonb(registered), 'least_privilege', coalesce(confined, false));
end $$;

create or replace function public.catchup_facts(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    rel regclass;
    first_pending text := quote_ident(spec->'pending'->0->>'column');
    unary text := upper(spec->'pending'->0->>'op');
begin
    if shape ? 'problem' then
        return shape;
    end if;
    rel := to_regclass(shape->>'rel');
    return jsonb_build_object(
        'columns', (
            select jsonb_object_agg(a.attname, jsonb_build_object(
                'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
                'selectable', has_column_privilege(rel, a.attnum, 'SELECT'),
                'updatable', has_column_privilege(rel, a.attnum, 'UPDATE') and a.attgenerated = ''))
            from pg_attribute a where a.attrelid = rel and a.attnum > 0 and not a.attisdropped),
        'unique_keys', (
            select coalesce(jsonb_agg((
                select jsonb_agg(a.attname order by u.n) from unnest(i.indkey::smallint[]) with ordinality as u(attnum, n)
                join pg_attribute a on a.attrelid = rel and a.attnum = u.attnum where u.n <= i.indnkeyatts)), '[]')
            from pg_index i where i.indrelid = rel and i.indisunique and i.indisvalid
              and i.indpred is null and i.indexprs is null),
        'row_security', (select c.relrowsecurity from pg_class c where c.oid = rel),
        'role', current_user,
        'bypasses_row_security', not row_security_active(rel),
        'has_update_policy', exists (
            select 1 from pg_policy o where o.polrelid = rel and o.polcmd in ('w', '*') and o.polpermissive
              and (o.polroles = '{0}' or exists (
                  select 1 from unnest(o.polroles) as m(role) where pg_has_role(m.role, 'USAGE')))),
        'triggers', (
            select coalesce(jsonb_agg(g.tgname order by g.tgname), '[]') from pg_trigger g
            where g.tgrelid = rel and not g.tgisinternal and g.tgenabled <> 'D' and (g.tgtype & 16) <> 0),
        'publications', (
            select coalesce(jsonb_agg(b.pubname order by b.pubname), '[]') from pg_publication_tables b
            where format('%I.%I', b.schemaname, b.tablename) = shape->>'rel'),
        -- As the planner does it: the density at the last ANALYZE times the size of today. 0 is unknown.
        'estimated_rows', (
            select case when c.relpages > 0 then round(c.reltuples::numeric / c.relpages
                * (pg_relation_size(rel) / current_setting('block_size')::integer))::bigint else 0 end
            from pg_class c where c.oid = rel),
        'pending_index', exists (
            select 1 from pg_index i where i.indrelid = rel and i.indisvalid and i.indpred is not null
              and (select jsonb_agg(a.attname order by u.n) from unnest(i.indkey::smallint[]) with ordinality as u(attnum, n)
                   join pg_attribute a on a.attrelid = rel and a.attnum = u.attnum
                   where u.n <= jsonb_array_length(spec->'key')) = spec->'key'
              and position(first_pending || case when unary like 'IS%' then ' ' || unary else '' end
                           in pg_get_expr(i.indpred, rel)) > 0));
end $$;
