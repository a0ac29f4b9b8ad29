-- Spaces of vectors: a table of our own for each, named after its namespace. The type `vector` may live in any schema,
-- so it is looked up in the catalogs; no table here depends on the extension before somebody makes a space.

create table if not exists catchup.spaces (
    name text collate "C" primary key,
    table_name text not null unique,
    dimension integer not null,
    kind text not null check (kind in ('vector', 'halfvec')),
    metric text not null default 'cosine',
    model text not null default '',
    target text not null default '',
    created_at timestamptz not null default now()
);

-- Where the extension lives; null where it is not installed.
create or replace function catchup.vector_schema() returns name
language sql stable security invoker set search_path = '' as $$
    select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
$$;

create or replace function catchup.no_extension() returns jsonb
language sql immutable security invoker set search_path = '' as $$
    select '{"no_extension": true}'::jsonb
$$;

-- The planner's estimate, as catchup_facts does it, but exact while the table is small.
create or replace function catchup.rows_of(rel regclass) returns bigint
language plpgsql stable security invoker set search_path = '' as $$
declare
    few constant integer := 10000;
    n bigint;
begin
    execute format('select count(*) from (select 1 from %s limit %s) r', rel, few + 1) into n;
    if n <= few then
        return n;
    end if;
    return (select greatest(n, case when c.relpages > 0 then round(c.reltuples::numeric / c.relpages
        * (pg_relation_size(rel) / current_setting('block_size')::integer))::bigint else 0 end)
        from pg_class c where c.oid = rel);
end $$;

create or replace function catchup.has_hnsw(rel regclass, column_name text) returns boolean
language sql stable security invoker set search_path = '' as $$
    select exists (
        select 1 from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = rel and i.indisvalid and m.amname = 'hnsw' and a.attname = column_name and i.indpred is null)
$$;

-- The table of a space, or null.
create or replace function catchup.space_rel(space text) returns text
language sql stable security invoker set search_path = '' as $$
    select format('catchup.%I', s.table_name) from catchup.spaces s where s.name = space
$$;

create or replace function public.catchup_space_facts(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    place name := catchup.vector_schema();
    known catchup.spaces;
    sample jsonb;
begin
    if place is null then
        return catchup.no_extension();
    end if;
    select s.* into known from catchup.spaces s where s.name = p::jsonb->0->>'name';
    if not found then
        return jsonb_build_object('exists', false);
    end if;
    -- Both ends of the primary key: cheap, and an id of another scheme sorts to one of them more often than not.
    execute format('select coalesce(jsonb_agg(distinct id), ''[]'') from ((select id from catchup.%1$I order by id limit 5) '
        'union all (select id from catchup.%1$I order by id desc limit 5)) s', known.table_name) into sample;
    return jsonb_build_object('exists', true, 'schema', 'catchup', 'table', known.table_name, 'kind', known.kind,
        'dimension', known.dimension, 'metric', known.metric, 'model', known.model, 'target', known.target,
        'count', catchup.rows_of(format('catchup.%I', known.table_name)::regclass), 'sample', sample,
        'hnsw', catchup.has_hnsw(format('catchup.%I', known.table_name)::regclass, 'embedding'),
        'extension_schema', place, 'vector_oid', format('%I.vector', place)::regtype::oid::bigint);
end $$;

-- Repeatable. Only who may create tables in schema catchup makes a space; anybody else is given the statement for it.
create or replace function public.catchup_space_create(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    space text := q->>'name';
    place name := catchup.vector_schema();
    made text := 'space_' || left(regexp_replace(lower(space), '[^a-z0-9]+', '_', 'g'), 40) || '_' || left(md5(space), 10);
    known catchup.spaces;
begin
    if place is null then
        return catchup.no_extension();
    end if;
    if space !~ '^[\x20-\x7e]{1,128}$' or (q->>'dimension')::integer not between 1 and 16000 then
        return jsonb_build_object('problem', 'a space has a name of 1 to 128 printable ASCII characters and 1 to 16,000 dimensions');
    end if;
    perform pg_advisory_xact_lock(hashtext('catchup spaces'));
    select s.* into known from catchup.spaces s where s.name = space;
    if found then
        if known.dimension <> (q->>'dimension')::integer then
            return jsonb_build_object('problem', format('space %s has %s dimensions, not %s', space, known.dimension, q->>'dimension'));
        end if;
        return jsonb_build_object('table', known.table_name);
    end if;
    if not has_schema_privilege('catchup', 'CREATE') or not has_table_privilege('catchup.spaces', 'INSERT') then
        return jsonb_build_object('not_owner', current_user, 'sql', format('select public.catchup_space_create(%L);', p));
    end if;
    execute format('create table catchup.%I (id text collate "C" primary key, embedding %I.%I(%s) not null, '
        'metadata jsonb not null default ''{}'')', made, place, q->>'kind', (q->>'dimension')::integer);
    insert into catchup.spaces (name, table_name, dimension, kind, model, target)
    values (space, made, (q->>'dimension')::integer, q->>'kind', q->>'model', q->>'target');
    perform catchup.admit_roles(made);
    return jsonb_build_object('table', made);
end $$;

-- Records are [id, vector as text, metadata]. Over a DSN the same statement is sent with the vectors in binary.
create or replace function public.catchup_space_put(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    rel text := catchup.space_rel(q->>'name');
    took bigint;
begin
    if rel is null then
        return jsonb_build_object('no_space', true);
    end if;
    execute format('insert into catchup.%I as t (id, embedding, metadata) select r.v->>0, (r.v->>1)::%I.vector, r.v->2 '
        'from jsonb_array_elements($1) as r(v) '
        'on conflict (id) do update set embedding = excluded.embedding, metadata = excluded.metadata',
        (select s.table_name from catchup.spaces s where s.name = q->>'name'), catchup.vector_schema())
    using q->'records';
    get diagnostics took = row_count;
    return jsonb_build_object('took', took);
end $$;

create or replace function public.catchup_space_seen(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    rel text := catchup.space_rel(q->>'name');
    ids jsonb;
begin
    if rel is null then
        return jsonb_build_object('no_space', true);
    end if;
    execute format('select coalesce(jsonb_agg(t.id), ''[]'') from %s t '
        'where t.id = any (array(select jsonb_array_elements_text($1)))', rel) into ids using q->'ids';
    return jsonb_build_object('ids', ids);
end $$;

create or replace function public.catchup_space_ids(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    rel text := catchup.space_rel(q->>'name');
    ids jsonb;
begin
    if rel is null then
        return jsonb_build_object('no_space', true);
    end if;
    execute format('select coalesce(jsonb_agg(s.id order by s.id), ''[]'') from '
        '(select t.id from %s t where t.id > $1 order by t.id limit $2) s', rel)
    into ids using coalesce(q->>'above', ''), (q->>'limit')::integer;
    return jsonb_build_object('ids', ids);
end $$;

create or replace function public.catchup_space_delete(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    rel text := catchup.space_rel(q->>'name');
    deleted bigint;
begin
    if rel is null then
        return jsonb_build_object('no_space', true);
    end if;
    execute format('delete from %s t where t.id = any (array(select jsonb_array_elements_text($1)))', rel) using q->'ids';
    get diagnostics deleted = row_count;
    return jsonb_build_object('deleted', deleted);
end $$;

-- For this transaction only: as many candidates as are asked for, or the index would return fewer, and on and on while
-- a filter leaves too few (pgvector 0.8; an older one does not know the setting and would refuse it).
create or replace function catchup.widen_search(top integer) returns void
language plpgsql stable security invoker set search_path = '' as $$
begin
    perform set_config('hnsw.ef_search', least(1000, greatest(100, top * 2))::text, true);
    if (select string_to_array(e.extversion, '.')::integer[] >= array[0, 8] from pg_extension e where e.extname = 'vector') then
        perform set_config('hnsw.iterative_scan', 'strict_order', true);
    end if;
end $$;

create or replace function public.catchup_space_query(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    place name := catchup.vector_schema();
    known catchup.spaces;
    matches jsonb;
begin
    select s.* into known from catchup.spaces s where s.name = q->>'name';
    if not found then
        return jsonb_build_object('no_space', true);
    end if;
    perform catchup.widen_search((q->>'top')::integer);
    execute format('select coalesce(jsonb_agg(jsonb_build_object(''id'', s.id, ''score'', 1 - s.distance, '
        '''metadata'', s.metadata) order by s.distance, s.id), ''[]'') from '
        '(select t.id, t.metadata, t.embedding operator(%1$I.<=>) %2$L::%1$I.%3$I as distance from catchup.%4$I t where %5$s '
        'order by t.embedding operator(%1$I.<=>) %2$L::%1$I.%3$I limit %6$s) s',
        place, q->>'vector', known.kind, known.table_name,
        (select coalesce(string_agg(format('t.metadata->%L = %L::jsonb', w.key, w.value::text), ' and '), 'true')
         from jsonb_each(q->'where') as w), (q->>'top')::integer)
    into matches;
    return jsonb_build_object('matches', matches);
end $$;
