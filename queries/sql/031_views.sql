-- Statistics of videos: when each is due, and the pages of counts that are written.

-- Rows that a target may insert: a whole table of snapshots or of priorities, by its full unique key. Only the owner
-- changes this; catchup_views_write refuses every other table.
create table if not exists catchup.owned (
    target text not null,
    table_schema text not null,
    table_name text not null,
    primary key (target, table_schema, table_name)
);

-- When each video is asked for again, and since when it is absent. Where the user keeps a table of priorities, that one
-- says when, and this one what became of the last time. `asked_at` moves with every outcome.
create table if not exists catchup.schedule (
    target_no integer not null,
    video_id text collate "C" not null,
    next_due timestamptz not null,
    tier smallint not null,
    asked_at timestamptz,
    absent_on date,
    unavailable_at timestamptz,
    primary key (target_no, video_id)
);
create index if not exists schedule_by_due on catchup.schedule (target_no, next_due, video_id);

-- Counts that fell or jumped a thousandfold: stored as they are, and remembered here.
create table if not exists catchup.view_flags (
    target_no integer not null,
    video_id text collate "C" not null,
    day date not null,
    kind text not null check (kind in ('fell', 'jumped')),
    was numeric not null,
    became numeric not null,
    run_id text not null,
    primary key (target_no, video_id, day)
);
create index if not exists view_flags_by_run on catchup.view_flags (run_id);

-- 0 every 12 hours, 1 daily, 2 every three days, 3 weekly, 4 every four weeks (YouTube's terms: stored statistics are
-- refreshed or deleted within 30 days). Young videos move most, whatever their size.
-- As text, which every statement has within itself: a function with a search_path of its own is called, 4 us a video.
-- date_part, for extract() is numeric since PostgreSQL 14: 1 us a video more.
create or replace function catchup.tier_sql(published text, per_day text) returns text
language sql immutable security invoker set search_path = '' as $$
    select format('(select case when o.age < 2 or o.pace >= 100000 then 0 when o.age < 14 or o.pace >= 10000 then 1 '
        'when o.age < 60 or o.pace >= 1000 then 2 when o.age < 365 or o.pace >= 100 then 3 else 4 end from (select y.age, coalesce(%2$s) as pace '
        'from (select date_part(''epoch'', now() - %1$s) / 86400 as age) y) o)', published, per_day)
$$;

create or replace function catchup.every_sql(tier text) returns text
language sql immutable security invoker set search_path = '' as $$
    select format('(array[''12 hours'', ''1 day'', ''3 days'', ''7 days'', ''28 days'']::interval[])'
        '[least(greatest(coalesce(%s, 4), 0), 4) + 1]', tier)
$$;
drop function if exists catchup.tier_of(double precision, double precision);
drop function if exists catchup.tier_every(integer);

create or replace function catchup.column_types(place regclass) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce(jsonb_object_agg(a.attname, format_type(a.atttypid, -1)), '{}')
    from pg_attribute a where a.attrelid = place and a.attnum > 0 and not a.attisdropped
$$;

create or replace function catchup.has_unique_key(place regclass, columns text[]) returns boolean
language sql stable security invoker set search_path = '' as $$
    select exists (
        select 1 from pg_index i where i.indrelid = place and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
          and (select array_agg(a.attname::text order by a.attname) from unnest(i.indkey::smallint[]) with ordinality as u(attnum, n)
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum where u.n <= i.indnkeyatts)
            = (select array_agg(c order by c) from unnest(columns) as c))
$$;

-- Columns that must have a value and get none from us or by themselves: the first insert would fail, with all its page.
create or replace function catchup.unfilled(place regclass, filled text[]) returns text
language sql stable security invoker set search_path = '' as $$
    select string_agg(a.attname, ', ') from pg_attribute a where a.attrelid = place and a.attnum > 0 and not a.attisdropped
      and a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '' and a.attname <> all (filled)
$$;

-- The tables of a target of views, with their columns, as one value; or what is missing.
create or replace function catchup.views_shape(q jsonb) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    kept regclass := to_regclass(format('%I.%I', spec->>'schema', q->'views'->>'snapshots'));
    ranks regclass := to_regclass(format('%I.%I', spec->>'schema', q->'views'->>'priorities'));
    missing text;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    if kept is null then
        return jsonb_build_object('problem', format('table %I.%I does not exist', spec->>'schema', q->'views'->>'snapshots'));
    end if;
    select string_agg(name, ', ') into missing from unnest('{video_id,snapshot_date,view_count}'::text[]) as c(name)
    where not catchup.column_types(kept) ? name;
    if missing is not null or not catchup.has_unique_key(kept, '{video_id,snapshot_date}') then
        return jsonb_build_object('problem', format('table %s %s', kept, coalesce('has no column ' || missing,
            'has no unique key (video_id, snapshot_date)')));
    end if;
    select string_agg(name, ', ') into missing from unnest('{video_id,priority_tier,next_track_date}'::text[]) as c(name)
    where ranks is not null and not catchup.column_types(ranks) ? name;
    if missing is not null or (ranks is not null and not catchup.has_unique_key(ranks, '{video_id}')) then
        return jsonb_build_object('problem', format('table %s %s', ranks, coalesce('has no column ' || missing,
            'has no unique key (video_id)')));
    end if;
    missing := coalesce(
        kept || ' needs a value for ' || catchup.unfilled(kept, '{video_id,snapshot_date,view_count,days_since_published}'),
        ranks || ' needs a value for ' || catchup.unfilled(ranks,
            '{video_id,priority_tier,next_track_date,last_tracked,tracking_frequency_days}'));
    if missing is not null then
        return jsonb_build_object('problem', format('table %s in every row, and nobody says which', missing));
    end if;
    return shape || jsonb_build_object('snapshots', format('%I.%I', spec->>'schema', q->'views'->>'snapshots'),
        'snapshot_types', catchup.column_types(kept), 'priorities', case when ranks is not null then
            format('%I.%I', spec->>'schema', q->'views'->>'priorities') end, 'priority_types', catchup.column_types(ranks),
        'key', spec->'key'->>0, 'key_type',
        -- With its collation: an id that comes from the schedule has another one, and then no index of the table would serve.
        (shape->'types'->>(spec->'key'->>0)) || coalesce((select format(' collate %I.%I', n.nspname, c.collname)
            from pg_attribute a join pg_collation c on c.oid = a.attcollation join pg_namespace n on n.oid = c.collnamespace
            where a.attrelid = to_regclass(shape->>'rel') and a.attname = spec->'key'->>0), ''),
        'published', case when shape->'types' ? (q->'views'->>'published')
            then format('t.%I', q->'views'->>'published') else 'null' end || '::timestamptz',
        'target_no', coalesce((select g.target_no from catchup.targets g where g.target = q->>'target'), 0));
end $$;

-- What says when a video is due: id, due, tier. A priority without a date says nothing yet.
create or replace function catchup.due_sql(shape jsonb) returns text
language sql immutable security invoker set search_path = '' as $$
    select case when shape->>'priorities' is null
        then format('select s.video_id as id, s.next_due as due, s.tier::integer as tier from catchup.schedule s where s.target_no = %s',
            shape->>'target_no')
        else format('select s.video_id as id, s.next_track_date as due, s.priority_tier::integer as tier from %s s '
            'where s.next_track_date is not null', shape->>'priorities') end
$$;

-- Videos that nothing says a time for, with the tier and the time that age, velocity and last snapshot give them. One
-- that was never looked at is due since it was published. `limit 1`: the tier is worked out once, though two columns need it.
create or replace function catchup.unplanned_sql(shape jsonb, videos text) returns text
language sql immutable security invoker set search_path = '' as $$
    select format('select t.%1$I::text as id, '
        'coalesce(l.snapshot_date::timestamptz + %8$s, least(%2$s, now()), ''2005-02-14'') as due, f.tier '
        'from %3$s t left join lateral (%4$s limit 1) d on true left join lateral (select x.snapshot_date, %5$s as rate from %6$s x '
        'where x.video_id = t.%1$I order by x.snapshot_date desc limit 1) l on true cross join lateral '
        '(select %7$s as tier limit 1) f where d.id is null',
        shape->>'key', shape->>'published', videos,
        replace(catchup.due_sql(shape), 'where', format('where s.video_id = t.%I%s and', shape->>'key',
            case when shape->>'priorities' is null then '::text collate "C"' else '' end)),
        case when shape->'snapshot_types' ? 'daily_views_rate' then 'x.daily_views_rate::float8' else 'null::float8' end,
        shape->>'snapshots', catchup.tier_sql(shape->>'published', format('l.rate, t.%I::float8 / greatest(1, y.age)', shape->>'proof')),
        catchup.every_sql('f.tier'))
$$;

-- Which of the rows that are looked at are meant: by slice, filter, tier, and what the operator picked.
create or replace function catchup.picked_sql(q jsonb, shape jsonb, at text) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    pick jsonb := q->'pick';
    parts text[] := array[catchup.slice_sql(q->'spec', shape->'types', pick->'above', pick->'upto')];
    fresh text := format('(a.asked_at is null or a.asked_at < %s)', at);
begin
    parts := parts || array(select catchup.condition_sql(shape->'types', w->>0, '=', w->>1) from jsonb_array_elements(q->'where') as w);
    if jsonb_array_length(pick->'tiers') > 0 then
        parts := parts || format('w.tier = any (%L::integer[])', array(select jsonb_array_elements_text(pick->'tiers')));
    end if;
    return array_to_string(parts || case pick->>'mode'
        when 'retry' then format('(%s and (w.due <= %s or a.unavailable_at is not null))', fresh, at)
        when 'stale' then format('(a.unavailable_at is null and (a.asked_at is null or a.asked_at < %s - make_interval(secs => %s)))',
            at, (pick->>'stale_s')::numeric)
        when 'all' then format('(a.unavailable_at is null and %s)', fresh)
        else format('(a.unavailable_at is null and w.due <= %s)', at) end, ' and ');
end $$;

-- A page in the order of being overdue: so many of the schedule are looked at, and those that are meant come back.
-- `unplanned` looks at keys of videos instead, for a plan that must not write the schedule.
-- Of a schedule that was just filled the planner knows nothing: by a bitmap it would read and sort all of the rest for each
-- page (150 ms at 178,000), instead of walking along the index.
create or replace function public.catchup_views_due(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set max_parallel_workers_per_gather = 0 set enable_bitmapscan = off as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.views_shape(q) || jsonb_build_object('proof', spec->'cells'->>0);
    at text := format('%L::timestamptz', coalesce(q->'pick'->>'at', clock_timestamp()::text));
    due_type text := case when shape->>'priorities' is null then 'timestamptz' else shape->'priority_types'->>'next_track_date' end;
    is_unplanned boolean := coalesce((q->>'unplanned')::boolean, false);
    looked text;
    result jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    looked := case when is_unplanned then format('select t.%1$I as id, null::timestamptz as due from %2$s t where %3$s order by t.%1$I limit %4$s',
            shape->>'key', shape->>'rel', catchup.slice_sql(spec, shape->'types',
                coalesce(nullif(q->'cursor', 'null'), q->'pick'->'above'), q->'pick'->'upto'), (q->>'limit')::integer)
        else format('select s.* from (%s) s where %s and %s order by s.due, s.id limit %s', catchup.due_sql(shape),
            case when q->'cursor'->>0 is null then 'true'
                else format('(s.due, s.id) > (%L::%s, %L)', q->'cursor'->>1, due_type, q->'cursor'->>0) end,
            case when coalesce(q->'pick'->>'mode', 'due') = 'due' then format('s.due <= %s', at) else 'true' end,
            (q->>'limit')::integer) end;
    execute format(
        'with l as materialized (%1$s), w as (%2$s) select jsonb_build_object(''rows'', (select coalesce(jsonb_agg(jsonb_build_object('
        '''key'', jsonb_build_array(w.id, w.due::text), ''guard'', %3$s, ''values'', %4$s || jsonb_build_object(''tier'', w.tier, '
        '''absent_on'', a.absent_on, ''today'', (now())::date), ''was'', %5$s) order by w.due, w.id), ''[]'') '
        -- By key, one by one: for a thousand of them the planner would read both tables whole (60 ms a page at 178,000).
        'from w cross join lateral (select %12$s from %6$s t where t.%7$I = w.id::%8$s limit 1) t left join lateral (select x.* '
        'from catchup.schedule x where x.target_no = %9$s and x.video_id = w.id::text collate "C" limit 1) a on true '
        'where %10$s), ''last'', (select case when count(*) = %11$s then (select jsonb_build_array(m.id, m.due::text) from l m '
        'order by m.due desc, m.id desc limit 1) end from l), ''now'', now()::text)',
        looked, case when is_unplanned then catchup.unplanned_sql(shape, format('(select %s from %s t join l on l.id = t.%I)',
            catchup.needed_sql(q), shape->>'rel', shape->>'key')) else 'select l.id, l.due, l.tier from l' end,
        catchup.guard_sql(spec, 'null::jsonb'), catchup.object_sql(catchup.shown(spec), ''), catchup.object_sql(spec->'cells', '::text'),
        shape->>'rel', shape->>'key', shape->>'key_type', shape->>'target_no', catchup.picked_sql(q, shape, at), (q->>'limit')::integer,
        catchup.needed_sql(q))
    into result;
    return result || catchup.took_ms();
end $$;

-- So many videos, by key: those that nothing says a time for get one. Only for who holds the lease.
create or replace function public.catchup_views_seed(p text) returns jsonb
language plpgsql volatile security invoker
set search_path = '' set lock_timeout = '5s' set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.views_shape(q) || jsonb_build_object('proof', spec->'cells'->>0);
    undeclared jsonb;
    videos text;
    result jsonb;
begin
    perform 1 from catchup.leases l
    where l.run_id = q->>'run_id' and l.generation = (q->>'generation')::bigint for key share;
    if not found then
        return jsonb_build_object('fenced', true);
    end if;
    undeclared := catchup.undeclared_tables(q, shape);
    if shape ? 'problem' or undeclared is not null then
        return case when shape ? 'problem' then shape else jsonb_build_object('undeclared', undeclared) end;
    end if;
    videos := format('(select %5$s from %1$s t where %2$s order by t.%3$I limit %4$s)', shape->>'rel', catchup.slice_sql(spec,
        shape->'types', coalesce(nullif(q->'cursor', 'null'), q->'pick'->'above'), q->'pick'->'upto'), shape->>'key', (q->>'limit')::integer, catchup.needed_sql(q));
    execute format('insert into %s', case when shape->>'priorities' is null then format(
            'catchup.schedule (target_no, video_id, next_due, tier) select %s, u.id, u.due, u.tier from (%s) u '
            'on conflict (target_no, video_id) do nothing', shape->>'target_no', catchup.unplanned_sql(shape, videos))
        else format('%s as r (video_id, priority_tier, next_track_date%s) select u.id::%s, u.tier, u.due::%s%s from (%s) u '
            'on conflict (video_id) do update set next_track_date = excluded.next_track_date where r.next_track_date is null',
            shape->>'priorities', case when shape->'priority_types' ? 'tracking_frequency_days' then ', tracking_frequency_days' else '' end,
            shape->'priority_types'->>'video_id', shape->'priority_types'->>'next_track_date',
            case when shape->'priority_types' ? 'tracking_frequency_days' then format(', greatest(1, extract(epoch from %s) / 86400)::%s',
                catchup.every_sql('u.tier'), shape->'priority_types'->>'tracking_frequency_days') else '' end,
            catchup.unplanned_sql(shape, videos)) end);
    execute format('select case when count(*) = %s then jsonb_build_array(max(v.%2$I)::text) end from %3$s v',
        (q->>'limit')::integer, shape->>'key', videos) into result;
    return jsonb_build_object('last', result) || catchup.took_ms();
end $$;

create or replace function catchup.undeclared_tables(q jsonb, shape jsonb) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_agg(c.name) from unnest(array[q->'views'->>'snapshots',
        case when shape->>'priorities' is not null then q->'views'->>'priorities' end]) as c(name)
    where c.name is not null and not exists (select 1 from catchup.owned o
        where (o.target, o.table_schema, o.table_name) = (q->>'target', q->'spec'->>'schema', c.name))
$$;

-- One page of counts: videos' own cells under the guard, a snapshot a video and day, and the next time for each.
create or replace function public.catchup_views_write(p text) returns jsonb
language plpgsql volatile security invoker
set search_path = '' set lock_timeout = '5s' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    q jsonb := p::jsonb->0;
    shape jsonb := catchup.views_shape(q) || jsonb_build_object('proof', q->'spec'->'cells'->>0);
    undeclared jsonb := catchup.undeclared_tables(q, shape);
    early jsonb;
    put jsonb;
    noted jsonb;
begin
    if shape ? 'problem' then
        return shape;
    elsif undeclared is not null then
        return jsonb_build_object('undeclared', undeclared);
    end if;
    early := catchup.begin_write(q);
    if early is not null then
        return early;
    end if;
    put := catchup.put_rows(q);
    noted := catchup.put_snapshots(q, shape, put);
    perform catchup.put_absences(q, shape);
    delete from catchup.schedule s using jsonb_array_elements_text(put->'gone') as g(i)
    where s.target_no = (shape->>'target_no')::integer and s.video_id = q->'rows'->(g.i::integer)->'key'->>0;
    -- A video that is skipped today is asked for again by itself: only what failed stands.
    return catchup.end_write(q || jsonb_build_object('verdicts', (select coalesce(jsonb_agg(v), '[]')
        from jsonb_array_elements(q->'verdicts') as e(v) where v->>'state' = 'failed')),
        put || jsonb_build_object('views', noted), noted - 'flags');
end $$;

-- Counts that were measured are true whatever became of the row meanwhile, so a snapshot is kept of every video that is
-- still there; only where nothing had changed and the update still did nothing (`kept`) somebody forbids it. A snapshot is
-- of the day in which it is stored; from a journal that is older than an hour, of the moment that the service told.
create or replace function catchup.put_snapshots(q jsonb, shape jsonb, put jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    seen integer[] := array(select jsonb_array_elements_text(put->'wrote')::integer)
        || array(select key::integer from jsonb_each_text(put->'changed') where value <> 'kept');
    is_own boolean := shape->>'priorities' is null;
    types jsonb := shape->'snapshot_types';
    ranks jsonb := shape->'priority_types';
    columns text;
    sources text;
    sets text;
    noted jsonb;
begin
    if cardinality(seen) = 0 then
        return '{"hidden": 0, "fell": 0, "jumped": 0, "flags": []}';
    end if;
    select string_agg(quote_ident(name), ', ' order by n), string_agg(format('%s::%s', source, types->>name), ', ' order by n),
        string_agg(format('%1$I = excluded.%1$I', name), ', ' order by n) filter (where n > 2) into columns, sources, sets
    from (values (1, 'video_id', 'm.id'), (2, 'snapshot_date', 'm.today'), (3, 'view_count', 'm.v'), (4, 'like_count', 'm.l'),
        (5, 'comment_count', 'm.c'), (6, 'days_since_published', '(m.today - m.published::date)'),
        (7, 'daily_views_rate', 'm.rate')) as c(n, name, source) where types ? name;
    execute format(
        'with b as materialized (select distinct on (e.v->''key''->>0) (e.v->''key''->>0)::%1$s as id, (e.v->''counts''->>0)::bigint as v, '
        '(e.v->''counts''->>1)::bigint as l, (e.v->''counts''->>2)::bigint as c, (e.v->''was''->>%2$L)::numeric as was, h.at, h.at::date as today '
        'from jsonb_array_elements($1) with ordinality as e(v, n) cross join lateral (select (e.v->''counts''->>3)::timestamptz as told) w '
        'cross join lateral (select case when w.told < now() - interval ''1 hour'' then w.told else now() end as at) h '
        'where (e.n - 1)::integer = any ($2)), '
        'm as materialized (select b.*, %3$s as published, p.day as prev_on, coalesce(p.views, b.was) as prev, '
        'round((b.v - p.views) / (b.today - p.day), 4) as rate, %4$s as rank from b join %5$s t on t.%6$I = b.id left join lateral '
        '(select x.snapshot_date as day, x.view_count::numeric as views from %7$s x where x.video_id = b.id and x.snapshot_date < b.today '
        'order by x.snapshot_date desc limit 1) p on true), '
        'n as materialized (select m.*, m.at + %13$s as next, k.tier from m cross join lateral '
        '(select coalesce(m.rank, %14$s) as tier) k), '
        's as (insert into %7$s (%8$s) select %9$s from m order by m.id on conflict (video_id, snapshot_date) do update set %10$s), '
        'd as (insert into catchup.schedule as a (target_no, video_id, next_due, tier, asked_at) select %11$s, n.id::text, n.next, n.tier, '
        'n.at from n order by n.id on conflict (target_no, video_id) do update set next_due = excluded.next_due, '
        'tier = excluded.tier, asked_at = excluded.asked_at, absent_on = null, unavailable_at = null), '
        'f as (select m.id, m.today, m.prev, m.v, case when m.v < m.prev then ''fell'' else ''jumped'' end as kind from m '
        'where m.v < m.prev or (m.prev > 0 and m.v >= 1000 * m.prev)), '
        'g as (insert into catchup.view_flags as o select %11$s, f.id::text, f.today, f.kind, f.prev, f.v, $3 from f on conflict '
        '(target_no, video_id, day) do update set kind = excluded.kind, was = excluded.was, became = excluded.became, run_id = excluded.run_id)%12$s '
        'select jsonb_build_object(''hidden'', (select count(*) from m where m.l is null or m.c is null), ''fell'', (select count(*) from f '
        'where f.kind = ''fell''), ''jumped'', (select count(*) from f where f.kind = ''jumped''), ''flags'', (select coalesce(jsonb_agg('
        'jsonb_build_array(o.id::text, o.kind, o.prev::text, o.v::text)), ''[]'') from (select * from f limit 20) o))',
        shape->>'key_type', shape->>'proof', shape->>'published',
        case when is_own then 'null::integer' else format('(select r.priority_tier::integer from %s r where r.video_id = b.id)', shape->>'priorities') end,
        shape->>'rel', shape->>'key', shape->>'snapshots', columns, sources, sets, shape->>'target_no',
        case when is_own then '' else ', u as (' || catchup.move_priorities_sql(shape, 'n.id, n.tier, n.next from n') || ')' end,
        catchup.every_sql('k.tier'), catchup.tier_sql('m.published', 'm.rate::float8, m.v / greatest(1, y.age)'))
    into noted using q->'rows', seen, q->>'run_id';
    return noted;
end $$;

-- `source` is a select list of id, tier and the next time. A date that is not over yet would be due again at once.
create or replace function catchup.move_priorities_sql(shape jsonb, source text) returns text
language sql immutable security invoker set search_path = '' as $$
    select format('insert into %1$s as r (video_id, priority_tier, next_track_date%2$s%7$s) select k.id, k.tier, %3$s%4$s%8$s from (select %5$s) as '
        'k(id, tier, next) order by k.id on conflict (video_id) do update set next_track_date = excluded.next_track_date%6$s',
        shape->>'priorities', case when x.has_last then ', last_tracked' else '' end,
        case when x.is_date then 'greatest(k.next::date, (now())::date + 1)' else format('k.next::%s', x.due_type) end,
        case when x.has_last then format(', clock_timestamp()::%s', shape->'priority_types'->>'last_tracked') else '' end, source,
        case when x.has_last then ', last_tracked = excluded.last_tracked' else '' end,
        case when x.days is null then '' else ', tracking_frequency_days' end,
        coalesce(format(', greatest(1, extract(epoch from %s) / 86400)::%s', catchup.every_sql('k.tier'), x.days), ''))
    from (select shape->'priority_types' ? 'last_tracked' as has_last, shape->'priority_types'->>'next_track_date' as due_type,
              shape->'priority_types'->>'next_track_date' = 'date' as is_date,
              shape->'priority_types'->>'tracking_frequency_days' as days) x
$$;

-- Videos without counts: their next time too. One that is absent is looked for tomorrow, since only a second absence, on
-- another UTC day, makes it unavailable; then it is not due any more, and not looked at at the head of every page either.
create or replace function catchup.put_absences(q jsonb, shape jsonb) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    source text := format('select distinct on (e.v->''key''->>0) (e.v->''key''->>0)::%1$s as id, e.v->>''reason'' as reason, w.tier, clock_timestamp() '
        '+ case e.v->>''reason'' when ''absent'' then interval ''1 day'' when ''unavailable'' then interval ''100 years'' '
        'else %4$s end as next from jsonb_array_elements($1) as e(v) left join (%2$s) w on w.id = (e.v->''key''->>0)::%3$s',
        shape->>'key_type', catchup.due_sql(shape), case when shape->>'priorities' is null then 'text' else shape->'priority_types'->>'video_id' end,
        catchup.every_sql('w.tier'));
begin
    if jsonb_array_length(q->'verdicts') = 0 then
        return;
    end if;
    execute format('insert into catchup.schedule as a (target_no, video_id, next_due, tier, asked_at, absent_on, unavailable_at) '
        'select %s, n.id::text, n.next, coalesce(n.tier, 4), clock_timestamp(), case when n.reason = ''absent'' then (now())::date end, '
        'case when n.reason = ''unavailable'' then clock_timestamp() end from (%s) n order by n.id on conflict (target_no, video_id) do update set '
        'next_due = excluded.next_due, asked_at = excluded.asked_at, absent_on = coalesce(a.absent_on, excluded.absent_on), '
        'unavailable_at = coalesce(excluded.unavailable_at, a.unavailable_at)', shape->>'target_no', source) using q->'verdicts';
    if shape->>'priorities' is not null then
        execute catchup.move_priorities_sql(shape, format('n.id, coalesce(n.tier, 4), n.next from (%s) n', source)) using q->'verdicts';
    end if;
end $$;

-- How the table is spread over the tiers, from a sample of about 400 pages: nothing is counted.
create or replace function public.catchup_views_outlook(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.views_shape(q) || jsonb_build_object('proof', spec->'cells'->>0);
    share float8;
    videos text;
    tiers jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    share := least(100, 100 * 400.0 / greatest(1, pg_relation_size(to_regclass(shape->>'rel')) / current_setting('block_size')::integer));
    videos := format('(select %s from %s t tablesample system (%s) repeatable (7))', catchup.needed_sql(q), shape->>'rel', share);
    execute format('select coalesce(jsonb_object_agg(x.tier, jsonb_build_array(x.n, x.due)), ''{}'') from (select w.tier, count(*) as n, '
        'count(*) filter (where %s) as due from (select s.id::text as id, s.due::timestamptz as due, s.tier from %s v join (%s) s on s.id = v.%I%s '
        'union all %s) w join %s t on t.%I = w.id::%s left join catchup.schedule a on a.target_no = %s and a.video_id = w.id collate "C" '
        'where a.unavailable_at is null group by w.tier) x',
        catchup.picked_sql(q, shape, 'clock_timestamp()'), videos, catchup.due_sql(shape), shape->>'key',
        case when shape->>'priorities' is null then '::text collate "C"' else '' end, catchup.unplanned_sql(shape, videos),
        shape->>'rel', shape->>'key', shape->>'key_type', shape->>'target_no')
    into tiers;
    return jsonb_build_object('tiers', tiers, 'share', share / 100, 'priorities', shape->'priorities', 'undeclared',
        coalesce(catchup.undeclared_tables(q, shape), '[]'), 'narrow', (select coalesce(jsonb_agg(c.place || '.' || c.name), '[]') from (
            select spec->>'table' as place, name, shape->'types'->>name as type from jsonb_array_elements_text(spec->'cells') as n(name)
            union all select q->'views'->>'snapshots', name, shape->'snapshot_types'->>name
            from unnest('{view_count,like_count,comment_count}'::text[]) as n(name)) c where c.type in ('integer', 'smallint')))
        || catchup.took_ms();
end $$;

-- Videos that were there when they were asked for last.
create or replace function public.catchup_views_alive(p text) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('ids', coalesce(jsonb_agg(x.video_id), '[]')) from (
        select s.video_id from catchup.schedule s join catchup.targets g using (target_no)
        where g.target = p::jsonb->0->>'target' and s.asked_at is not null and s.absent_on is null
        order by s.next_due desc limit (p::jsonb->0->>'limit')::integer) x
$$;

create or replace function catchup.register_owned(of_target text, places jsonb) returns void
language plpgsql volatile security invoker set search_path = '' as $$
begin
    delete from catchup.owned o where o.target = of_target;
    insert into catchup.owned (target, table_schema, table_name)
    select of_target, e.v->>0, e.v->>1 from jsonb_array_elements(places) as e(v)
    where to_regclass(format('%I.%I', e.v->>0, e.v->>1)) is not null;
end $$;
