-- DOMAIN.md (5): a video understanding app, as it is before `catchup migrate --set rich-semantics`.
create table if not exists public.videos (
    id uuid primary key,
    owner_id uuid not null,
    filename text,
    storage_path text not null,
    status text not null default 'READY' check (status in ('PENDING', 'PROCESSING', 'READY', 'FAILED')),
    error_message text,
    updated_at timestamptz not null default now()
);
create table if not exists public.video_scenes (
    id uuid primary key,
    video_id uuid not null references public.videos on delete cascade,
    index integer not null,
    start_s double precision,
    end_s double precision,
    transcript_segment text,
    visual_summary text,
    combined_text text,
    thumbnail_url text
);
