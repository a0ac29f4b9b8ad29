-- A provider's rate limit, shared by all processes that work with one model: each holds a share of it for some seconds.

create table if not exists catchup.rate_shares (
    name text not null,
    worker text not null,
    share double precision not null,
    wants double precision not null,
    expires_at timestamptz not null,
    primary key (name, worker)
);
-- A 429 closes the gate for all of them.
create table if not exists catchup.rates (
    name text primary key,
    closed_until timestamptz not null
);

-- The fair share of whoever wants `wants`: those who want less than an equal part get what they want, the others share
-- what is left of it evenly.
create or replace function catchup.fair_share(others double precision[], wants double precision) returns double precision
language plpgsql immutable security invoker set search_path = '' as $$
declare
    left_over double precision := 1;
    holders integer := cardinality(others) + 1;
    each double precision;
begin
    for each in select least(w, 1) as w from unnest(others || wants) as u(w) order by w loop
        if each >= wants then
            return least(wants, left_over / holders);
        end if;
        left_over := left_over - least(each, left_over / holders);
        holders := holders - 1;
    end loop;
    return least(wants, left_over);
end $$;

-- Takes or renews a share. Granted is never more than the others have left, so the sum never passes the limit: a newcomer
-- gets its part when the others renew theirs, which is within seconds.
create or replace function public.catchup_share_rate(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    wants double precision := greatest(0.01, least(1, (q->>'wants')::double precision));
    others double precision[];
    taken double precision;
    granted double precision;
begin
    perform pg_advisory_xact_lock(hashtext('catchup rate ' || (q->>'name')));
    delete from catchup.rate_shares s where s.name = q->>'name' and s.expires_at <= clock_timestamp();
    select coalesce(array_agg(s.wants), '{}'), coalesce(sum(s.share), 0) into others, taken
    from catchup.rate_shares s where s.name = q->>'name' and s.worker <> q->>'worker';
    granted := greatest(0, least(catchup.fair_share(others, wants), 1 - taken));
    insert into catchup.rate_shares (name, worker, share, wants, expires_at)
    values (q->>'name', q->>'worker', granted, wants, clock_timestamp() + make_interval(secs => (q->>'ttl_s')::float8))
    on conflict (name, worker) do update set share = excluded.share, wants = excluded.wants, expires_at = excluded.expires_at;
    if (q->>'closed_s')::float8 > 0 then
        insert into catchup.rates (name, closed_until)
        values (q->>'name', clock_timestamp() + make_interval(secs => (q->>'closed_s')::float8))
        on conflict (name) do update set closed_until = greatest(catchup.rates.closed_until, excluded.closed_until);
    end if;
    return jsonb_build_object('share', granted, 'workers', cardinality(others) + 1, 'closed_s', greatest(0, coalesce((
        select extract(epoch from r.closed_until - clock_timestamp()) from catchup.rates r where r.name = q->>'name'), 0)));
end $$;

create or replace function public.catchup_leave_rate(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    delete from catchup.rate_shares s where s.name = q->>'name' and s.worker = q->>'worker';
    return '{"left": true}';
end $$;
