-- A service's units a day, held over all runs: booked here, in lumps, before the call that costs them.

create table if not exists catchup.quota (
    service text not null,
    day date not null,
    booked bigint not null default 0,
    closed_until timestamptz,
    primary key (service, day)
);
-- What a process may spend without asking again. A dead one's stays booked: nobody knows what it spent.
create table if not exists catchup.quota_lumps (
    lump_no bigint generated always as identity primary key,
    holder text not null,
    run_id text not null,
    service text not null,
    day date not null,
    granted bigint not null,
    taken_at timestamptz not null default clock_timestamp()
);
create index if not exists quota_lumps_by_holder on catchup.quota_lumps (holder, day);

-- A place of its own, so that a test may put another clock here, in its own database; nobody else can.
create or replace function catchup.quota_clock() returns timestamptz
language sql volatile security invoker set search_path = '' as $$ select clock_timestamp() $$;

-- YouTube's day turns at midnight Pacific (its page on quota, read 2026-11-21), so it has 23 or 25 hours twice a year.
create or replace function catchup.quota_day(moment timestamptz) returns date
language sql stable security invoker set search_path = '' as $$ select (moment at time zone 'America/Los_Angeles')::date $$;

create or replace function catchup.quota_turn(day date) returns timestamptz
language sql stable security invoker set search_path = '' as $$ select day::timestamp at time zone 'America/Los_Angeles' $$;

-- The day never goes back: a clock that jumps does not open a quota.
create or replace function catchup.quota_today(of_service text, moment timestamptz) returns date
language sql stable security invoker set search_path = '' as $$
    select greatest(catchup.quota_day(moment), (select max(u.day) from catchup.quota u where u.service = of_service))
$$;

-- What the user's own application has booked for itself today, where it keeps such a table. It is read, and never written:
-- the application adds up its own calls there, and ours are here.
create or replace function catchup.quota_elsewhere(of_service text, of_day date) returns bigint
language plpgsql stable security invoker set search_path = '' as $$
declare
    place regclass := to_regclass('public.youtube_quota_usage');
    units numeric;
begin
    if of_service <> 'youtube' or place is null
        or (select count(*) from pg_attribute a join pg_type t on t.oid = a.atttypid where a.attrelid = place
            and not a.attisdropped and has_column_privilege(place, a.attnum, 'SELECT')
            and (a.attname = 'date' and t.typname = 'date' or a.attname = 'quota_used' and t.typcategory = 'N')) < 2 then
        return 0;
    end if;
    execute format('select sum(t.quota_used) from %s t where t.date = $1', place) into units using of_day;
    return least(greatest(coalesce(ceil(units), 0), 0), 9000000000000000);
end $$;

-- The reserve is the application's, so what it has used comes out of that first.
create or replace function catchup.quota_state(q jsonb, today date, moment timestamptz) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('day', today, 'booked', s.booked, 'elsewhere', s.elsewhere,
        'left', case when s.is_closed then 0 else greatest(0, (q->>'limit')::bigint
            - greatest((q->>'reserve')::bigint, s.elsewhere) - s.booked) end,
        'is_closed', s.is_closed, 'resets_at', s.resets_at, 'resets_in_s', extract(epoch from s.resets_at - moment))
    from (select coalesce(u.booked, 0) as booked, catchup.quota_elsewhere(q->>'service', today) as elsewhere,
              coalesce(u.closed_until > moment, false) as is_closed,
              case when u.closed_until > moment then u.closed_until else catchup.quota_turn(today + 1) end as resets_at
          from (values (1)) as one(n) left join catchup.quota u on u.service = q->>'service' and u.day = today) s
$$;

create or replace function public.catchup_quota(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    moment timestamptz := catchup.quota_clock();
begin
    return catchup.quota_state(q, catchup.quota_today(q->>'service', moment), moment);
end $$;

create or replace function public.catchup_quota_take(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    moment timestamptz := catchup.quota_clock();
    today date := catchup.quota_today(q->>'service', moment);
    units bigint;
begin
    insert into catchup.quota (service, day) values (q->>'service', today) on conflict (service, day) do nothing;
    if found then
        delete from catchup.quota u where u.service = q->>'service' and u.day < today - 40;
        delete from catchup.quota_lumps l where l.service = q->>'service' and l.day < today - 40;
    end if;
    -- One taker at a time: the sum of what is granted must never pass the limit.
    perform 1 from catchup.quota u where u.service = q->>'service' and u.day = today for update;
    -- A lump is at most a hundredth of the limit, so that what a dead process holds is little.
    units := least((q->>'want')::bigint, greatest(1, (q->>'limit')::bigint / 100),
        (catchup.quota_state(q, today, moment)->>'left')::bigint);
    if units > 0 then
        insert into catchup.quota_lumps (holder, run_id, service, day, granted)
        values (q->>'holder', q->>'run_id', q->>'service', today, units);
        update catchup.quota u set booked = u.booked + units where u.service = q->>'service' and u.day = today;
    end if;
    return catchup.quota_state(q, today, moment) || jsonb_build_object('granted', greatest(0, units));
end $$;

-- Everything this process was granted for that day, beyond what it spent of it. Saying it again changes nothing.
create or replace function public.catchup_quota_give_back(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    of_day date := (q->>'day')::date;
    lump catchup.quota_lumps;
    excess bigint;
    part bigint;
    returned bigint := 0;
begin
    perform 1 from catchup.quota u where u.service = q->>'service' and u.day = of_day for update;
    select coalesce(sum(l.granted), 0) - greatest(0, (q->>'spent')::bigint) into excess
    from catchup.quota_lumps l where l.holder = q->>'holder' and l.service = q->>'service' and l.day = of_day;
    for lump in select * from catchup.quota_lumps l where l.holder = q->>'holder' and l.service = q->>'service'
                and l.day = of_day order by l.lump_no desc loop
        exit when excess <= 0;
        part := least(excess, lump.granted);
        update catchup.quota_lumps l set granted = l.granted - part where l.lump_no = lump.lump_no;
        update catchup.quota u set booked = greatest(0, u.booked - part) where u.service = q->>'service' and u.day = of_day;
        excess := excess - part;
        returned := returned + part;
    end loop;
    return jsonb_build_object('returned', returned);
end $$;

-- The service itself says that the day is used up: nobody asks again before it turns. In the first quarter of an hour it
-- may still mean the day before, whose end is not the same second everywhere: then it is asked again after that.
create or replace function public.catchup_quota_close(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    moment timestamptz := catchup.quota_clock();
    today date := catchup.quota_today(q->>'service', moment);
    of_day date := (q->>'day')::date;
    settled timestamptz := catchup.quota_turn(of_day) + interval '15 minutes';
    until_at timestamptz := case when moment < settled then settled else catchup.quota_turn(of_day + 1) end;
begin
    insert into catchup.quota (service, day, closed_until) values (q->>'service', of_day, until_at)
    on conflict (service, day) do update set closed_until = greatest(quota.closed_until, excluded.closed_until);
    return catchup.quota_state(q, today, moment);
end $$;
