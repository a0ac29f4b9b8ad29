-- catchup_page a row at a time, for a road that is not bound to one value: nothing is gathered into one JSON value to be
-- taken apart again. 178,000 rows of 2.3 kB cost the server 20 us each instead of 36 (2026-11-21). The first three columns
-- are a problem's where there is one: no key, and its words. Of a window the last row tells its last key, and nothing else.
create or replace function public.catchup_page_rows(p text)
returns table (row_key text, row_guard text, row_values text, row_was text, row_joined text, row_known text, row_due boolean,
    row_ms double precision)
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
begin
    if shape ? 'problem' then
        return query select null, null, shape::text, null, null, null, false, 0::double precision;
        return;
    end if;
    return query execute format(
        'select (%1$s)::text, (%2$s)::text, (%3$s)::text, (%4$s)::text, j.rows::text, (%11$s)::text, %12$s, '
        'extract(epoch from clock_timestamp() - statement_timestamp())::double precision * 1000 '
        'from (select %6$s from %7$s t where %8$s order by %5$s limit %9$s) t cross join lateral (select %10$s as rows) j '
        'order by %5$s',
        catchup.key_sql(spec), catchup.guard_sql(spec, 'j.rows'),
        regexp_replace(catchup.object_sql(catchup.shown(spec), ''), '^jsonb_', 'json_'),
        catchup.object_sql(spec->'cells', '::text'), catchup.order_sql(spec, 'asc'), catchup.needed_sql(q), catchup.window_sql(q, shape, catchup.needed_sql(q)),
        catchup.candidates_sql(q, shape->'types'), (q->>'limit')::integer, catchup.joined_sql(spec),
        catchup.known_sql(q, catchup.guard_sql(spec, 'j.rows')), catchup.due_sql(q, shape->'types'));
    if (q->>'window')::integer > 0 then
        return query select catchup.window_end(q, shape)::text, null, null, null, null, null, false,
            extract(epoch from clock_timestamp() - statement_timestamp())::double precision * 1000;
    end if;
end $$;
