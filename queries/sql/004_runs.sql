-- Runs, their end, and what stands after them.

create or replace function catchup.run_json(r catchup.runs) returns jsonb
language sql stable security invoker set search_path = '' set timezone = 'UTC' as $$
    select jsonb_build_object('run_id', r.run_id, 'job', r.job, 'target', r.target, 'fingerprint', r.fingerprint,
        'params', r.params, 'above', r.above, 'upto', r.upto, 'upper', r.upper_key, 'state', r.state, 'home', r.home,
        'checkpoint', c.key, 'unconfirmed', coalesce(c.unconfirmed, 0), 'unconfirmed_usd', coalesce(c.unconfirmed_usd, 0),
        'books', r.books, 'calls', r.calls, 'spent_usd', r.spent_usd, 'possibly_usd', r.possibly_usd,
        'stop_reason', r.stop_reason, 'cancel_asked', r.cancel_asked,
        'started_at', r.started_at, 'updated_at', r.updated_at)
    from (select 1) as always left join catchup.checkpoints c on c.run_id = r.run_id
$$;

create or replace function public.catchup_open_run(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    -- Opening is repeatable: a lost answer is asked for again with the same run id.
    insert into catchup.runs (run_id, job, target, fingerprint, params, above, upto, upper_key, home)
    values (q->>'run_id', q->>'job', q->>'target', q->>'fingerprint', q->'params',
        nullif(q->'above', 'null'), nullif(q->'upto', 'null'), nullif(q->'upper', 'null'), q->'home')
    on conflict (run_id) do nothing;
    insert into catchup.checkpoints (run_id) values (q->>'run_id') on conflict (run_id) do nothing;
    return jsonb_build_object('ok', true);
end $$;

create or replace function public.catchup_reopen_run(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    run catchup.runs;
begin
    update catchup.runs r set state = 'running', stop_reason = '', cancel_asked = false, home = q->'home', updated_at = now()
    where r.run_id = q->>'run_id' returning r.* into run;
    return jsonb_build_object('run', case when run.run_id is not null then catchup.run_json(run) end);
end $$;

-- One function for every way to look for runs, newest first.
create or replace function public.catchup_runs(p text) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    q jsonb := p::jsonb->0;
    found_runs jsonb;
begin
    select coalesce(jsonb_agg(catchup.run_json(r) order by r.started_at desc, r.run_id desc), '[]') into found_runs
    from (
        select * from catchup.runs f
        where (q->>'run_id' is null or f.run_id = q->>'run_id')
          and (q->>'target' is null or f.target = q->>'target')
          and (q->'states' is null or q->'states' ? f.state)
          and (q->'jobs' is null or q->'jobs' ? f.job)
          and (q->'slice' is null or (f.above is not distinct from nullif(q->'slice'->'above', 'null')
                                      and f.upto is not distinct from nullif(q->'slice'->'upto', 'null')))
        order by f.started_at desc, f.run_id desc limit (q->>'limit')::integer
    ) r;
    return jsonb_build_object('runs', found_runs);
end $$;

create or replace function public.catchup_ask_cancel(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
begin
    update catchup.runs set cancel_asked = true where run_id = p::jsonb->0->>'run_id' and state = 'running';
    return jsonb_build_object('ok', found);
end $$;

-- An operator says that this run is dead: its lease goes (a zombie is fenced), its unspent money comes back.
create or replace function public.catchup_cancel_dead(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    dead text := p::jsonb->0->>'run_id';
begin
    delete from catchup.leases where run_id = dead;
    perform catchup.give_back(dead, 0);
    update catchup.runs set state = 'cancelled', updated_at = now() where run_id = dead;
    return jsonb_build_object('ok', found);
end $$;

create or replace function public.catchup_close_run(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    perform 1 from catchup.leases l
    where l.run_id = q->>'run_id' and l.generation = (q->>'generation')::bigint for key share;
    if not found then
        return jsonb_build_object('fenced', true);
    end if;
    update catchup.runs set state = q->>'state', stop_reason = q->>'stop_reason', updated_at = now()
    where run_id = q->>'run_id';
    return jsonb_build_object('ok', found);
end $$;

create or replace function public.catchup_named(p text) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('verdicts', coalesce(jsonb_agg(jsonb_build_object('key', v.key::jsonb, 'guard', v.guard,
        'state', v.state, 'reason', v.reason, 'detail', v.detail) order by v.at, v.key), '[]'))
    from (select * from catchup.verdicts where run_id = p::jsonb->0->>'run_id'
          order by at, key limit (p::jsonb->0->>'limit')::integer) v
$$;

create or replace function public.catchup_standing(p text) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('reasons', coalesce(jsonb_object_agg(s.reason, s.n), '{}'))
    from (select v.reason, count(*) as n
          from (select reason from catchup.verdicts where target = p::jsonb->0->>'target'
                and fingerprint = p::jsonb->0->>'fingerprint' limit (p::jsonb->0->>'at_most')::integer) v
          group by v.reason) s
$$;

-- Verdicts and provenance are the state of rows, not history: they stay.
create or replace function public.catchup_prune(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    before timestamptz := now() - make_interval(days => (p::jsonb->0->>'older_than_days')::integer);
    n_runs bigint; n_writes bigint; n_leases bigint; n_budget bigint;
begin
    delete from catchup.writes where at < before;
    get diagnostics n_writes = row_count;
    delete from catchup.leases where expires_at < before;
    get diagnostics n_leases = row_count;
    -- The newest window stays: it is what keeps a clock that jumps back from opening a fresh budget.
    delete from catchup.budget b where b.starts_at < before
        and b.starts_at < (select max(m.starts_at) from catchup.budget m where m.scope = b.scope);
    get diagnostics n_budget = row_count;
    delete from catchup.lumps u using catchup.runs r
    where r.run_id = u.run_id and r.state in ('finished', 'cancelled') and r.updated_at < before;
    delete from catchup.runs where state in ('finished', 'cancelled') and updated_at < before;
    get diagnostics n_runs = row_count;
    return jsonb_build_object('runs', n_runs, 'writes', n_writes, 'leases', n_leases, 'budget', n_budget);
end $$;
