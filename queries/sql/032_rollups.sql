-- Materialized views over what refresh-views writes, and what has changed since a run.

create table if not exists catchup.rollups (
    target text primary key,
    refreshed_at timestamptz not null
);

-- Every materialized view that depends on these tables, by whatever way, each behind those it depends on itself.
create or replace function public.catchup_views_rollups(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    found_views jsonb;
begin
    with recursive edges as (
        select distinct r.ev_class as view, d.refobjid as source
        from pg_depend d join pg_rewrite r on r.oid = d.objid
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
    ), reached(view, depth) as (
        select e.view, 1 from edges e
        where e.source = any (array(select to_regclass(format('%I.%I', q->'spec'->>'schema', t.name))
            from jsonb_array_elements_text(q->'tables') as t(name)))
        union select e.view, r.depth + 1 from edges e join reached r on e.source = r.view where r.depth < 100
    )
    select coalesce(jsonb_agg(jsonb_build_object('schema', n.nspname, 'name', c.relname, 'is_owner',
            pg_has_role(c.relowner, 'USAGE'), 'concurrently', c.relispopulated and exists (
                select 1 from pg_index i where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null
                  and i.indexprs is null)) order by x.depth, n.nspname, c.relname), '[]') into found_views
    from (select r.view, max(r.depth) as depth from reached r group by r.view) x
    join pg_class c on c.oid = x.view join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'm';
    return jsonb_build_object('views', found_views, 'is_due', exists (
        select 1 from catchup.runs r where r.target = q->>'target' and (r.books->>'wrote')::bigint > 0
          and r.updated_at > coalesce((select o.refreshed_at from catchup.rollups o where o.target = q->>'target'), '-infinity')));
end $$;

-- `at` is from before the refreshing began: what was written meanwhile is for the next time.
create or replace function public.catchup_views_rolled_up(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    insert into catchup.rollups as o (target, refreshed_at) values (q->>'target', (q->>'at')::timestamptz)
    on conflict (target) do update set refreshed_at = greatest(o.refreshed_at, excluded.refreshed_at);
    return jsonb_build_object('ok', true);
end $$;

-- So many videos by id: of those asked for since that moment, what is other than in the snapshot before, or gone.
create or replace function public.catchup_views_changed(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    shape jsonb := catchup.views_shape(q);
    result jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('with l as materialized (select s.* from catchup.schedule s where s.target_no = %1$s and s.video_id > %2$L collate "C" '
        'order by s.video_id limit %3$s) select jsonb_build_object(''last'', (select case when count(*) = %3$s then max(l.video_id) end from l), '
        '''rows'', (select coalesce(jsonb_agg(jsonb_build_object(''id'', l.video_id, ''state'', case when l.unavailable_at is not null then '
        '''unavailable'' when l.absent_on is not null then ''absent'' else ''tracked'' end, ''day'', n.snapshot_date, '
        '''now'', jsonb_build_array(n.view_count, n.like_count, n.comment_count), '
        '''was'', case when o.video_id is not null then jsonb_build_array(o.view_count, o.like_count, o.comment_count) end, ''flag'', '
        '(select f.kind from catchup.view_flags f where f.target_no = %1$s and f.video_id = l.video_id and f.day = n.snapshot_date)) '
        'order by l.video_id), ''[]'') from l left join lateral (select x.video_id, x.snapshot_date, x.view_count, %4$s as like_count, '
        '%5$s as comment_count from %6$s x where x.video_id = l.video_id::%7$s and l.absent_on is null order by x.snapshot_date desc limit 1) n '
        'on true left join lateral (select x.video_id, x.view_count, %4$s as like_count, %5$s as comment_count from %6$s x where x.video_id = '
        'l.video_id::%7$s and x.snapshot_date < n.snapshot_date order by x.snapshot_date desc limit 1) o on true where l.asked_at >= %8$L '
        'and (l.absent_on is not null or (n.video_id is not null and (o.video_id is null or (n.view_count, n.like_count, n.comment_count) '
        'is distinct from (o.view_count, o.like_count, o.comment_count))))))',
        shape->>'target_no', coalesce(q->>'cursor', ''), (q->>'limit')::integer,
        case when shape->'snapshot_types' ? 'like_count' then 'x.like_count' else 'null::bigint' end,
        case when shape->'snapshot_types' ? 'comment_count' then 'x.comment_count' else 'null::bigint' end,
        shape->>'snapshots', shape->'snapshot_types'->>'video_id', q->>'since')
    into result;
    return result || catchup.took_ms();
end $$;
