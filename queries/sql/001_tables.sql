-- The ledger. Every file here may be run again: `catchup migrate` applies them all, in order, in one transaction.
-- Tables live in a schema of their own, which PostgREST does not expose; only the functions public.catchup_* are.

create schema if not exists catchup;

create table if not exists catchup.meta (
    only_row boolean primary key default true check (only_row),
    version integer not null,
    migrated_at timestamptz not null default now()
);

-- What a target may write. Only the owner changes it; catchup_write refuses every other cell.
create table if not exists catchup.cells (
    target text not null,
    table_schema text not null,
    table_name text not null,
    cell text not null,
    primary key (target, table_schema, table_name, cell)
);

-- One row a target: its row lock is the gate through which leases are taken, its generation only grows.
create table if not exists catchup.targets (
    target_no integer generated always as identity primary key,
    target text not null unique,
    generation bigint not null default 0
);

create table if not exists catchup.runs (
    run_id text primary key,
    job text not null,
    target text not null,
    fingerprint text not null,
    params jsonb not null default '{}',
    above jsonb,
    upto jsonb,
    upper_key jsonb,
    state text not null default 'running' check (state in ('running', 'stopped', 'finished', 'cancelled')),
    home jsonb not null,
    books jsonb not null default '{}',
    calls bigint not null default 0,
    tokens_in bigint not null default 0,
    tokens_out bigint not null default 0,
    spent_usd numeric not null default 0,
    possibly_usd numeric not null default 0,
    stop_reason text not null default '',
    cancel_asked boolean not null default false,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index if not exists runs_by_target on catchup.runs (target, started_at desc);

-- Lease, checkpoint and budget are separate rows, so that a heartbeat never waits behind a page write.
create table if not exists catchup.leases (
    run_id text primary key,
    target text not null,
    generation bigint not null,
    above jsonb,
    upto jsonb,
    home jsonb not null,
    expires_at timestamptz not null
);
create index if not exists leases_by_target on catchup.leases (target);

create table if not exists catchup.checkpoints (
    run_id text primary key references catchup.runs on delete cascade,
    key jsonb,
    unconfirmed integer not null default 0,
    unconfirmed_usd numeric not null default 0,
    updated_at timestamptz not null default now()
);

-- The outcome of a write stands beside the write, so that a lost answer can be asked for again.
create table if not exists catchup.writes (
    write_id text primary key,
    run_id text not null,
    outcome jsonb,
    at timestamptz not null default now()
);
create index if not exists writes_by_age on catchup.writes (at);

-- Exceptions only. `key` is the JSON array of the key's texts, as catchup.key_sql builds it.
create table if not exists catchup.verdicts (
    target text not null,
    key text collate "C" not null,
    fingerprint text not null,
    guard uuid not null,
    state text not null check (state in ('failed', 'skipped')),
    reason text not null,
    detail text not null default '',
    run_id text not null,
    at timestamptz not null default now(),
    primary key (target, key)
);
create index if not exists verdicts_by_run on catchup.verdicts (run_id);
create index if not exists verdicts_by_fingerprint on catchup.verdicts (target, fingerprint);

-- Who wrote a cell from which text. One narrow row for every row ever written (about 100 MB a million with its
-- index), so the words that repeat stand in `sources`.
create table if not exists catchup.sources (
    source_no integer generated always as identity primary key,
    target_no integer not null,
    run_id text not null,
    prompt_hash text not null,
    model text not null,
    at timestamptz not null default now(),
    unique (target_no, run_id, prompt_hash, model)
);
create table if not exists catchup.provenance (
    target_no integer not null,
    source_no integer not null,
    guard uuid not null,
    key text collate "C" not null,
    primary key (target_no, key)
);
-- How many vectors a row has: a shorter text later leaves fewer, and the rest are to be deleted.
alter table catchup.provenance add column if not exists parts integer not null default 1;

-- Vectors of two models in one place can be stored, and never compared.
create table if not exists catchup.places (
    place text primary key,
    model text not null,
    dimensions integer not null,
    target text not null,
    at timestamptz not null default now()
);

create table if not exists catchup.budget (
    scope text not null check (scope in ('hour', 'day')),
    starts_at timestamptz not null,
    booked_usd numeric not null default 0,
    primary key (scope, starts_at)
);

-- A lump is money a run may spend without asking again. Given back at the end, or kept as possibly billed.
create table if not exists catchup.lumps (
    lump_no bigint generated always as identity primary key,
    run_id text not null,
    granted_usd numeric not null,
    hour_at timestamptz not null,
    day_at timestamptz not null,
    taken_at timestamptz not null default clock_timestamp()
);
create index if not exists lumps_by_run on catchup.lumps (run_id);
