-- Work that is handed in whole and comes back within a day. What stands here is the intent before each remote act, so that
-- a killed client finds again what it may have done.

create table if not exists catchup.batches (
    chunk text primary key,
    run_id text not null,
    target text not null,
    fingerprint text not null,
    model text not null,
    place text not null,
    endpoint text not null,
    requests integer not null,
    tokens bigint not null,
    size_bytes bigint not null,
    sha256 text not null,
    reserved_usd numeric not null default 0,
    file_id text not null default '',
    batch_id text not null default '',
    status text not null default '',
    remote jsonb not null default '{}',
    files jsonb not null default '{}',
    books jsonb not null default '{}',
    note text not null default '',
    is_open boolean not null default true,
    made_at timestamptz not null default now(),
    upload_at timestamptz,
    create_at timestamptz,
    seen_at timestamptz,
    progress_at timestamptz,
    closed_at timestamptz
);
create index if not exists batches_open on catchup.batches (target) where is_open;
create index if not exists batches_by_run on catchup.batches (run_id);

-- Rows that are out, and those that came back without an answer. A row is in one open batch at most: the database says so.
-- Its line is called chunk-n. `was` is the proof cell as it was read, `tries` how often it came back for no reason.
create table if not exists catchup.batch_rows (
    chunk text not null references catchup.batches on delete cascade,
    n integer not null,
    target text not null,
    key text collate "C" not null,
    guard uuid not null,
    was text,
    state text not null default 'out' check (state in ('out', 'back')),
    tries smallint not null default 0,
    primary key (chunk, n)
);
create unique index if not exists batch_rows_out on catchup.batch_rows (target, key) where state = 'out';
-- Every write looks here for its rows, whichever state they are in: a partial index would not be used for that.
create index if not exists batch_rows_by_key on catchup.batch_rows (target, key);
drop index if exists catchup.batch_rows_back;

-- What a refusal told of an organisation's room, whose name nobody tells us: the provider's address stands for it.
create table if not exists catchup.batch_limits (
    place text not null,
    model text not null,
    tokens bigint not null,
    learned_at timestamptz not null default now(),
    primary key (place, model)
);

create or replace function catchup.holds_lease(q jsonb) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
begin
    perform 1 from catchup.leases l
    where l.run_id = q->>'run_id' and l.generation = (q->>'generation')::bigint for key share;
    return found;
end $$;

create or replace function catchup.chunk_json(b catchup.batches) returns jsonb
language sql stable security invoker set search_path = '' set timezone = 'UTC' as $$
    select to_jsonb(b) || jsonb_build_object(
        'out', (select count(*) from catchup.batch_rows r where r.chunk = b.chunk and r.state = 'out'),
        'age_s', extract(epoch from now() - b.made_at),
        'upload_age_s', extract(epoch from now() - b.upload_at),
        'create_age_s', extract(epoch from now() - b.create_at),
        'idle_s', extract(epoch from now() - b.progress_at),
        'gone_s', extract(epoch from now()) - (b.files->'gone'->>'at')::numeric)
$$;

-- Money that is promised to a batch and not yet settled: it is not given back before.
create or replace function catchup.held_usd(of_run text) returns numeric
language sql stable security invoker set search_path = '' as $$
    select coalesce(sum(b.reserved_usd), 0) from catchup.batches b where b.run_id = of_run and b.is_open
$$;

create or replace function public.catchup_open_chunk(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    c jsonb := q->'chunk';
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    insert into catchup.batches (chunk, run_id, target, fingerprint, model, place, endpoint, requests, tokens, size_bytes, sha256,
        reserved_usd)
    values (c->>'chunk', q->>'run_id', c->>'target', c->>'fingerprint', c->>'model', c->>'place', c->>'endpoint',
        (c->>'requests')::integer, (c->>'tokens')::bigint, (c->>'size_bytes')::bigint, c->>'sha256', (c->>'reserved_usd')::numeric)
    on conflict (chunk) do nothing;
    return jsonb_build_object('ok', true);
end $$;

-- Rows become this chunk's own; a row that is out in another one is left out of the answer. Asking again does no harm.
create or replace function public.catchup_claim_rows(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    claimed jsonb;
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    insert into catchup.batch_rows (chunk, n, target, key, guard, was, tries)
    select q->>'chunk', (e.v->>0)::integer, q->>'target', (e.v->1)::text, (e.v->>2)::uuid, e.v->>3,
        coalesce((select max(b.tries) from catchup.batch_rows b
                  where (b.target, b.key, b.state, b.guard) = (q->>'target', (e.v->1)::text, 'back', (e.v->>2)::uuid)), 0)
    from jsonb_array_elements(q->'rows') as e(v) on conflict do nothing;
    delete from catchup.batch_rows b using jsonb_array_elements(q->'rows') as e(v)
    where (b.target, b.key, b.state) = (q->>'target', (e.v->1)::text, 'back');
    select coalesce(jsonb_agg(b.n), '[]') into claimed
    from catchup.batch_rows b join jsonb_array_elements(q->'rows') as e(v)
        on (b.chunk, b.n) = (q->>'chunk', (e.v->>0)::integer) and b.key = (e.v->1)::text;
    return jsonb_build_object('claimed', claimed);
end $$;

-- What was done, or is about to be done, to a chunk. Progress is a change of what the provider says; of a file that is
-- `gone` the first time stays.
create or replace function public.catchup_note_chunk(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' set timezone = 'UTC' as $$
declare
    q jsonb := p::jsonb->0;
    c jsonb := q->'note';
    noted catchup.batches;
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    update catchup.batches b set
        file_id = coalesce(c->>'file_id', b.file_id), batch_id = coalesce(c->>'batch_id', b.batch_id),
        note = coalesce(c->>'note', b.note), sha256 = coalesce(c->>'sha256', b.sha256),
        size_bytes = coalesce((c->>'size_bytes')::bigint, b.size_bytes),
        requests = coalesce((c->>'requests')::integer, b.requests), tokens = coalesce((c->>'tokens')::bigint, b.tokens),
        reserved_usd = coalesce((c->>'reserved_usd')::numeric, b.reserved_usd),
        files = case when c ? 'gone' then jsonb_build_object('gone', jsonb_build_object('at', extract(epoch from now()))) else '{}' end
            || b.files || coalesce(c->'files', '{}'),
        upload_at = case when c ? 'forget_tries' then null when c ? 'uploading' then now() else b.upload_at end,
        create_at = case when c ? 'forget_tries' then null when c ? 'creating' then now() else b.create_at end,
        seen_at = case when c ? 'remote' then now() else b.seen_at end,
        progress_at = case when c ? 'remote' and c->'remote' <> b.remote then now() else b.progress_at end,
        status = coalesce(c->'remote'->>'status', b.status), remote = coalesce(c->'remote', b.remote)
    where b.chunk = q->>'chunk' and b.run_id = q->>'run_id' returning b.* into noted;
    return jsonb_build_object('chunk', case when noted.chunk is not null then catchup.chunk_json(noted) end);
end $$;

create or replace function public.catchup_chunks(p text) returns jsonb
language sql stable security invoker set search_path = '' set timezone = 'UTC' as $$
    select jsonb_build_object('chunks', coalesce(jsonb_agg(catchup.chunk_json(f.b) order by f.made_at desc, f.chunk desc), '[]'))
    from (select b, b.made_at, b.chunk from catchup.batches b, (select p::jsonb->0 as q) a
          where (q->>'target' is null or b.target = q->>'target') and (q->>'chunk' is null or b.chunk = q->>'chunk')
            and (q->>'run_id' is null or b.run_id = q->>'run_id')
            and (b.is_open or not coalesce((q->>'open_only')::boolean, false))
          order by b.made_at desc, b.chunk desc limit (select (p::jsonb->0->>'limit')::integer)) f
$$;

-- The open chunks of a run, and those of runs that are over: whoever holds the target looks after them.
create or replace function public.catchup_take_chunks(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    taken jsonb;
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    update catchup.batches b set run_id = q->>'run_id'
    where b.target = q->>'target' and b.is_open and b.run_id <> q->>'run_id' and not exists (
        select 1 from catchup.runs r where r.run_id = b.run_id and r.state in ('running', 'stopped'));
    select coalesce(jsonb_agg(catchup.chunk_json(b) order by b.made_at, b.chunk), '[]') into taken
    from catchup.batches b where b.run_id = q->>'run_id' and b.is_open;
    return jsonb_build_object('chunks', taken,
        'made', (select count(*) from catchup.batches b where b.run_id = q->>'run_id'),
        'back', (select count(*) from catchup.batch_rows r join catchup.batches b using (chunk)
            where r.target = q->>'target' and r.state = 'back' and b.run_id = q->>'run_id'));
end $$;

-- Rows of a chunk that are out (or that came back to a run), each beside itself as the table has it now.
create or replace function public.catchup_batch_page(p text) returns jsonb
language plpgsql stable security invoker
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set max_parallel_workers_per_gather = 0 as $$
declare
    q jsonb := p::jsonb->0;
    spec jsonb := q->'spec';
    shape jsonb := catchup.resolve(spec);
    rows jsonb;
begin
    if shape ? 'problem' then
        return shape;
    end if;
    execute format('with b as materialized (select r.n, r.chunk, r.key::jsonb as sent, r.guard, r.was, r.tries, %1$s '
        'from catchup.batch_rows r where %2$s order by r.chunk, r.n limit %3$s) '
        'select coalesce(jsonb_agg(jsonb_build_object(''n'', b.n, ''chunk'', b.chunk, ''key'', b.sent, ''guard'', b.guard, '
        '''was'', b.was, ''tries'', b.tries, ''row'', case when t.%4$I is not null then jsonb_build_object(''key'', %5$s, '
        '''guard'', %6$s, ''values'', %7$s, ''was'', %8$s, ''joined'', j.rows, ''known'', %9$s) end, '
        '''pending'', t.%4$I is not null and (%10$s)) order by b.chunk, b.n), ''[]''::jsonb) '
        'from b left join %11$s t on %12$s left join lateral (select %13$s as rows) j on true',
        catchup.incoming_key_sql(spec, shape->'types', 'r.key::jsonb'),
        case when q->>'chunk' is not null then format('r.chunk = %L and r.state = ''out'' and r.n > %s', q->>'chunk', (q->>'above')::integer)
            else format('r.target = %L and r.state = ''back'' and (r.chunk, r.n) > (%L, %s) and exists '
                '(select 1 from catchup.batches o where o.chunk = r.chunk and o.run_id = %L)', q->>'target',
                coalesce(q->>'above_chunk', ''), coalesce((q->>'above')::integer, -1), q->>'run_id') end,
        (q->>'limit')::integer, spec->'key'->>0, catchup.key_sql(spec), catchup.guard_sql(spec, 'j.rows'),
        catchup.object_sql(catchup.shown(spec), ''), catchup.object_sql(spec->'cells', '::text'),
        catchup.known_sql(q, catchup.guard_sql(spec, 'j.rows')),
        case when q->>'chunk' is null then catchup.candidates_sql(q - 'above', shape->'types') else 'true' end,
        shape->>'rel', catchup.same_key_sql(spec, shape->'types'), catchup.joined_sql(spec))
    into rows;
    return jsonb_build_object('rows', rows) || catchup.took_ms();
end $$;

-- Rows that got no answer: back among those to be sent, by reason; `counts` where nobody can say why.
create or replace function public.catchup_put_back(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    n_back bigint;
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    update catchup.batch_rows r set state = 'back', tries = r.tries + case when (q->>'counts')::boolean then 1 else 0 end
    where r.chunk = q->>'chunk' and r.state = 'out' and (q->'rows' = 'null' or r.n in (
        select e.v::integer from jsonb_array_elements_text(case when q->'rows' = 'null' then '[]' else q->'rows' end) as e(v)));
    get diagnostics n_back = row_count;
    if n_back > 0 then
        update catchup.batches b set books = catchup.add_counts(b.books, jsonb_build_object('resubmitted: ' || (q->>'reason'), n_back))
        where b.chunk = q->>'chunk';
    end if;
    return jsonb_build_object('back', n_back);
end $$;

-- A row that came back and is no candidate any more.
create or replace function public.catchup_forget_back(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    delete from catchup.batch_rows r using jsonb_array_elements(q->'keys') as e(v)
    where (r.target, r.key, r.state) = (q->>'target', e.v::text, 'back');
    return jsonb_build_object('ok', true);
end $$;

-- Closed is a chunk of which no row is out. Its money is settled then; what it held beyond that comes back with the run's.
create or replace function public.catchup_close_chunk(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
    n_out bigint;
    closed catchup.batches;
begin
    if not catchup.holds_lease(q) then
        return jsonb_build_object('fenced', true);
    end if;
    select count(*) into n_out from catchup.batch_rows r where r.chunk = q->>'chunk' and r.state = 'out';
    if n_out = 0 then
        update catchup.batches b set is_open = false, reserved_usd = 0, closed_at = coalesce(b.closed_at, now()),
            note = coalesce(q->>'note', b.note)
        where b.chunk = q->>'chunk';
    end if;
    select b.* into closed from catchup.batches b where b.chunk = q->>'chunk';
    return jsonb_build_object('chunk', catchup.chunk_json(closed));
end $$;

-- Called by every write: whoever writes a row, or names it, settles it where it was out.
create or replace function catchup.settle_batch_rows(q jsonb, wrote integer[]) returns void
language plpgsql volatile security invoker set search_path = '' as $$
begin
    if not exists (select 1 from catchup.batch_rows b where b.target = q->>'target') then
        return;
    end if;
    with settled as (
        select (e.v->'key')::text as key, case when (e.n - 1)::integer = any (wrote) then 'wrote'
            when q->'changed' ? (e.n - 1)::text then 'changed' else 'gone' end as how
        from jsonb_array_elements(q->'rows') with ordinality as e(v, n)
        union all
        select (e.v->'key')::text, (e.v->>'state') || ': ' || (e.v->>'reason') from jsonb_array_elements(q->'verdicts') as e(v)
    ), gone as (
        delete from catchup.batch_rows b using settled s where (b.target, b.key) = (q->>'target', s.key)
        returning b.chunk, b.state, s.how
    ), sums as (
        select c.chunk, jsonb_object_agg(c.how, c.n) as counts
        from (select g.chunk, g.how, count(*) as n from gone g where g.state = 'out' group by g.chunk, g.how) c group by c.chunk
    )
    update catchup.batches b set books = catchup.add_counts(b.books, s.counts) from sums s where b.chunk = s.chunk;
end $$;

create or replace function public.catchup_learn_limit(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    q jsonb := p::jsonb->0;
begin
    insert into catchup.batch_limits (place, model, tokens) values (q->>'place', q->>'model', (q->>'tokens')::bigint)
    on conflict (place, model) do update set tokens = excluded.tokens, learned_at = now();
    return jsonb_build_object('ok', true);
end $$;

create or replace function public.catchup_batch_limit(p text) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('limit', (
        select jsonb_build_object('tokens', l.tokens, 'age_s', extract(epoch from now() - l.learned_at))
        from catchup.batch_limits l where (l.place, l.model) = (p::jsonb->0->>'place', p::jsonb->0->>'model')),
        'validating', (select coalesce(jsonb_agg(jsonb_build_object('chunk', b.chunk, 'batch_id', b.batch_id, 'tokens', b.tokens)), '[]')
            from catchup.batches b where (b.place, b.model) = (p::jsonb->0->>'place', p::jsonb->0->>'model') and b.is_open))
$$;

-- An operator gives up what a chunk may still bring: its rows go again, also where their run has read past them, and what
-- it held stays booked, unless nobody ever tried to make a batch of it.
create or replace function public.catchup_abandon_chunk(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    of_chunk text := p::jsonb->0->>'chunk';
    n_out bigint;
begin
    if exists (select 1 from catchup.leases l join catchup.batches b on b.run_id = l.run_id
               where b.chunk = of_chunk and l.expires_at > clock_timestamp()) then
        return jsonb_build_object('busy', true);
    end if;
    update catchup.batch_rows r set state = 'back' where r.chunk = of_chunk and r.state = 'out';
    get diagnostics n_out = row_count;
    update catchup.runs r set possibly_usd = r.possibly_usd + b.reserved_usd from catchup.batches b
    where b.chunk = of_chunk and b.is_open and r.run_id = b.run_id and (b.batch_id <> '' or b.create_at is not null);
    update catchup.batches b set is_open = false, reserved_usd = 0, closed_at = now(), note = 'given up',
        books = catchup.add_counts(b.books, jsonb_build_object('given up', n_out))
    where b.chunk = of_chunk and b.is_open;
    return jsonb_build_object('ok', found, 'rows', n_out);
end $$;

-- Batches that were collected so long ago; those of a run that goes on stay, for their number names its next one.
create or replace function public.catchup_prune_batches(p text) returns jsonb
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' as $$
declare
    n_batches bigint;
begin
    delete from catchup.batches b
    where not b.is_open and b.closed_at < now() - make_interval(days => (p::jsonb->0->>'older_than_days')::integer)
        and not exists (select 1 from catchup.runs r where r.run_id = b.run_id and r.state in ('running', 'stopped'));
    get diagnostics n_batches = row_count;
    return jsonb_build_object('batches', n_batches);
end $$;
