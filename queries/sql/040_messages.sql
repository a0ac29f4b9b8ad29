-- Videos and the messages about them: which have been in their workers' hands for too long, what a run would send, and
-- what became of what was sent. Names of columns and values come with the question, cast to the column's own type.

-- At `older_s` seconds or more in one status, by the database's clock.
create or replace function public.catchup_stuck(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    rows jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('select coalesce(jsonb_agg(jsonb_build_object(''key'', s.key, ''since'', s.since::text, '
        '''seconds'', extract(epoch from statement_timestamp() - s.since)) order by s.n), ''[]'') '
        'from (select %1$s as key, t.%2$I as since, row_number() over (order by %3$s) as n from %4$s t '
        'where %5$s and t.%2$I < statement_timestamp() - make_interval(secs => %6$L::double precision) '
        'and %7$s order by %3$s limit %8$s) s',
        catchup.key_sql(spec), q->>'changed_at', catchup.order_sql(spec, 'asc'), shape->>'rel',
        concat_ws(' and ', catchup.condition_sql(shape->'types', q->>'status', '=', q->>'from'), (
            select string_agg(catchup.condition_sql(shape->'types', w->>0, '=', w->>1), ' and ') from jsonb_array_elements(q->'where') as w)),
        q->>'older_s', catchup.slice_sql(spec, shape->'types', q->'above', null), (q->>'limit')::integer)
    into rows;
    return jsonb_build_object('rows', rows) || catchup.took_ms();
end $$;

-- Puts rows back, each only if it is still as it was listed. What we said of a message about it no longer holds: it was
-- taken, and nothing came of it. `kept` are rows that are as listed and were not updated all the same.
create or replace function public.catchup_unstick(p text) returns jsonb
language plpgsql volatile security invoker
set search_path = '' set lock_timeout = '5s' set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    still text;
    hit integer[];
    kept integer[];
begin
    if shape ? 'problem' then
        return shape;
    end if;
    if not exists (select 1 from catchup.cells r where (r.target, r.table_schema, r.table_name, r.cell)
            = (q->>'target', spec->>'schema', spec->>'table', q->>'status')) then
        return jsonb_build_object('undeclared', jsonb_build_array(q->>'status'));
    end if;
    still := format('%s and %s and t.%I = b.since', catchup.same_key_sql(spec, shape->'types'),
        catchup.condition_sql(shape->'types', q->>'status', '=', q->>'from'), q->>'changed_at');
    execute format('with b as materialized (select (e.n - 1)::integer as i, %s, (e.v->>''since'')::%s as since '
        'from jsonb_array_elements($1) with ordinality as e(v, n)), '
        'done as (update %s as t set %I = %s from b where %s returning b.i) select coalesce(array_agg(i), ''{}'') from done',
        catchup.incoming_key_sql(spec, shape->'types', 'e.v->''key'''), shape->'types'->>(q->>'changed_at'), shape->>'rel',
        q->>'status', catchup.literal(shape->'types'->>(q->>'status'), q->>'to'), still)
    into hit using q->'rows';
    execute format('with b as materialized (select (e.n - 1)::integer as i, %s, (e.v->>''since'')::%s as since '
        'from jsonb_array_elements($1) with ordinality as e(v, n)) '
        'select coalesce(array_agg(b.i), ''{}'') from b join %s t on %s where b.i <> all ($2)',
        catchup.incoming_key_sql(spec, shape->'types', 'e.v->''key'''), shape->'types'->>(q->>'changed_at'), shape->>'rel', still)
    into kept using q->'rows', hit;
    update catchup.provenance v set guard = '00000000-0000-0000-0000-000000000000'
    from jsonb_array_elements(q->'rows') with ordinality as e(row, n), catchup.targets g
    where g.target = q->>'sent_by' and v.target_no = g.target_no and v.key = (e.row->'key')::text
      and (e.n - 1)::integer = any (hit);
    return jsonb_build_object('reset', to_jsonb(hit), 'kept', to_jsonb(kept));
end $$;

-- What is pending, by the columns of `by`, and how much of it would be sent: the rest waits, or was refused before. Never
-- count(*): at most `at_most` rows are looked at.
create or replace function public.catchup_message_counts(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    groups jsonb;
    looked integer;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('with t as (select (%1$s) as is_sent, jsonb_build_array(%2$s) as by from %3$s t where %4$s limit %5$s) '
        'select coalesce(jsonb_agg(jsonb_build_array(g.by, g.n, g.sends) order by g.sends desc, g.n desc, g.by::text), ''[]''), coalesce(sum(g.n), 0) '
        'from (select by, count(*) as n, count(*) filter (where is_sent) as sends from t group by by) g',
        catchup.candidates_sql(q, shape->'types'),
        (select string_agg(format('t.%I::text', c), ', ' order by n) from jsonb_array_elements_text(q->'by') with ordinality as b(c, n)),
        shape->>'rel', concat_ws(' and ', catchup.slice_sql(spec, shape->'types', q->'above', q->'upto'), (
            select string_agg(catchup.condition_sql(shape->'types', c->>'column', c->>'op', c->>'value'), ' and ')
            from jsonb_array_elements(spec->'pending') as c), (
            select string_agg(catchup.condition_sql(shape->'types', w->>0, '=', w->>1), ' and ') from jsonb_array_elements(q->'where') as w)),
        (q->>'at_most')::integer)
    into groups, looked;
    return jsonb_build_object('groups', groups, 'looked', looked) || catchup.took_ms();
end $$;

-- Which of these rows are as they were read, and no message is out about them.
create or replace function public.catchup_still(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    guard text := catchup.guard_sql(spec, 'null::jsonb');
    hit integer[];
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('with b as materialized (%s) select coalesce(array_agg(b.i), ''{}'') from b join %s t on %s where %s = b.guard and %s',
        catchup.incoming_sql(spec, shape->'types', '[]'), shape->>'rel', catchup.same_key_sql(spec, shape->'types'), guard,
        catchup.redo_sql(spec, shape->'types', q->>'target', q->'redo', guard))
    into hit using q->'rows';
    return jsonb_build_object('still', to_jsonb(hit)) || catchup.took_ms();
end $$;

-- What became of the rows that messages went out about, a page of them: by run and state, and the failed ones by name.
create or replace function public.catchup_followed(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    of_target integer := (select g.target_no from catchup.targets g where g.target = q->>'target');
    states text;
    answer jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    states := format('case when t.%1$I is null then ''gone'' when %2$s then ''failed'' when %3$s then ''ready'' '
        'when %4$s then case when %5$s = v.guard then ''waiting'' else ''back'' end else ''processing'' end',
        spec->'key'->>0, catchup.condition_sql(shape->'types', q->>'status', '=', q->>'failed'),
        concat_ws(' and ', catchup.condition_sql(shape->'types', q->>'status', '=', q->>'idle'),
            catchup.condition_sql(shape->'types', q->>'flag', 'is true', null)),
        catchup.condition_sql(shape->'types', q->>'status', '=', q->>'idle'), catchup.guard_sql(spec, 'null::jsonb'));
    execute format('with v as materialized (select v.key::jsonb as key, v.key as k, v.guard, s.run_id from catchup.provenance v '
        'join catchup.sources s using (source_no) where v.target_no = %1$s and v.key > %2$L collate "C" '
        'and s.source_no in (select n.source_no from catchup.sources n where n.target_no = %1$s order by n.at desc, n.source_no desc limit %3$s) '
        'order by v.key limit %4$s), b as materialized (select v.*, %5$s from v), '
        'w as materialized (select v.key, v.k, v.run_id, (%6$s) as state, %7$s as error from b v left join %8$s t on %9$s) '
        'select jsonb_build_object(''last'', (select max(w.k) from w), ''states'', (select coalesce(jsonb_agg(jsonb_build_array(c.run_id, c.state, c.n)), ''[]'') '
        'from (select w.run_id, w.state, count(*) as n from w group by w.run_id, w.state) c), ''failed'', (select coalesce('
        'jsonb_agg(jsonb_build_array(w.key, w.run_id, w.state, left(w.error, 300)) order by w.k), ''[]'') from w where w.state in (''failed'', ''back'')))',
        coalesce(of_target, 0), coalesce(q->>'above', ''), (q->>'runs')::integer, (q->>'limit')::integer,
        catchup.incoming_key_sql(spec, shape->'types', 'v.key'), states,
        case when shape->'types' ? (q->>'error') then format('t.%I::text', q->>'error') else '''''' end, shape->>'rel',
        replace(catchup.same_key_sql(spec, shape->'types'), 'b.k', 'v.k'))
    into answer;
    return answer || catchup.took_ms();
end $$;
