-- Ceilings by UTC hour and day, held over parallel runs. Money is granted in lumps, so that no call waits for the database.

-- The current windows. They follow the database's clock but never go back: a clock that jumps does not open a budget.
-- What living runs still hold is carried into a new window, since they may spend it there.
create or replace function catchup.open_windows() returns table (hour_at timestamptz, day_at timestamptz)
language plpgsql volatile security invoker set search_path = '' set timezone = 'UTC' as $$
begin
    select greatest(date_trunc('hour', clock_timestamp()), max(b.starts_at) filter (where b.scope = 'hour')),
           greatest(date_trunc('day', clock_timestamp()), max(b.starts_at) filter (where b.scope = 'day'))
    into hour_at, day_at from catchup.budget b;
    if (select count(*) from catchup.budget b
        where (b.scope, b.starts_at) in (('hour', hour_at), ('day', day_at))) < 2 then
        perform pg_advisory_xact_lock(hashtext('catchup budget'));
        insert into catchup.budget (scope, starts_at, booked_usd)
        select w.scope, w.starts_at, coalesce((
            select sum(greatest(0, h.granted - r.spent_usd - r.possibly_usd))
            from (select u.run_id, sum(u.granted_usd) as granted from catchup.lumps u group by u.run_id) h
            join catchup.runs r on r.run_id = h.run_id
            join catchup.leases l on l.run_id = h.run_id and l.expires_at > clock_timestamp()), 0)
        from (values ('hour', hour_at), ('day', day_at)) as w(scope, starts_at)
        on conflict (scope, starts_at) do nothing;
    end if;
    return next;
end $$;

create or replace function public.catchup_take_lump(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' set timezone = 'UTC' as $$
declare
    q jsonb := p::jsonb->0;
    window_now record;
    room record;
    granted numeric;
begin
    -- One taker at a time: the sum of what is granted must never pass a ceiling.
    perform pg_advisory_xact_lock(hashtext('catchup budget'));
    select * into window_now from catchup.open_windows();
    select (q->>'run_usd')::numeric - greatest(
               (select coalesce(sum(u.granted_usd), 0) from catchup.lumps u where u.run_id = q->>'run_id'),
               (select coalesce(max(r.spent_usd + r.possibly_usd), 0) from catchup.runs r where r.run_id = q->>'run_id')) as run,
           (q->>'hour_usd')::numeric - max(b.booked_usd) filter (where b.scope = 'hour') as hour,
           (q->>'day_usd')::numeric - max(b.booked_usd) filter (where b.scope = 'day') as day
    into room from catchup.budget b where (b.scope, b.starts_at) in (('hour', window_now.hour_at), ('day', window_now.day_at));
    granted := least((q->>'want_usd')::numeric, room.run, room.hour, room.day);
    if granted <= 0 then
        return jsonb_build_object('granted_usd', 0,
            'refused_by', case when room.run <= 0 then 'run' when room.day <= 0 then 'day' else 'hour' end,
            'clears_in_s', case when room.run <= 0 then null
                when room.day <= 0 then extract(epoch from window_now.day_at + interval '1 day' - clock_timestamp())
                else extract(epoch from window_now.hour_at + interval '1 hour' - clock_timestamp()) end);
    end if;
    insert into catchup.lumps (run_id, granted_usd, hour_at, day_at) values (q->>'run_id', granted, window_now.hour_at, window_now.day_at);
    update catchup.budget b set booked_usd = b.booked_usd + granted
    where (b.scope, b.starts_at) in (('hour', window_now.hour_at), ('day', window_now.day_at));
    return jsonb_build_object('granted_usd', granted, 'refused_by', '');
end $$;

-- Returns what a run holds beyond what it spent or may have spent, newest lumps first, to the windows they came from.
create or replace function catchup.give_back(of_run text, at_least_usd numeric) returns numeric
language plpgsql volatile security invoker set search_path = '' as $$
declare
    lump catchup.lumps;
    excess numeric;
    part numeric;
    returned numeric := 0;
begin
    perform pg_advisory_xact_lock(hashtext('catchup budget'));
    -- The ledger's own figure wins where it is higher: money is never given back twice, nor what is promised to a batch.
    select sum(u.granted_usd) - greatest(at_least_usd, catchup.held_usd(of_run) +
        (select coalesce(max(r.spent_usd + r.possibly_usd), 0) from catchup.runs r where r.run_id = of_run))
    into excess from catchup.lumps u where u.run_id = of_run;
    for lump in select * from catchup.lumps u where u.run_id = of_run order by u.lump_no desc loop
        exit when coalesce(excess, 0) <= 0;
        part := least(excess, lump.granted_usd);
        update catchup.lumps u set granted_usd = u.granted_usd - part where u.lump_no = lump.lump_no;
        update catchup.budget b set booked_usd = greatest(0, b.booked_usd - part)
        where (b.scope, b.starts_at) in (('hour', lump.hour_at), ('day', lump.day_at));
        excess := excess - part;
        returned := returned + part;
    end loop;
    return returned;
end $$;

create or replace function public.catchup_settle_run(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    return jsonb_build_object('returned_usd',
        catchup.give_back(q->>'run_id', (q->>'spent_usd')::numeric + (q->>'possibly_usd')::numeric));
end $$;
