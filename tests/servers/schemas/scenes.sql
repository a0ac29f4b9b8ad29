-- DOMAIN.md (5): a video understanding app. Row level security is on everywhere: the wrong key sees nothing.
create type public.video_status as enum ('PENDING', 'PROCESSING', 'READY', 'FAILED');

create table public.videos (
    id uuid primary key default gen_random_uuid(),
    owner_id uuid not null,
    filename text,
    storage_path text not null,
    status public.video_status not null default 'PENDING',
    error_message text,
    video_summary text,
    has_rich_semantics boolean,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create table public.video_scenes (
    id uuid primary key default gen_random_uuid(),
    video_id uuid not null references public.videos on delete cascade,
    index integer not null,
    start_s double precision,
    end_s double precision,
    transcript_segment text,
    visual_summary text,
    combined_text text,
    thumbnail_url text,
    visual_description text,
    visual_entities text[],
    visual_actions text[],
    tags text[],
    unique (video_id, index)
);
create index on public.video_scenes using gin (tags);

create function public.touch_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := clock_timestamp();
    return new;
end $$;
create trigger videos_touch before update on public.videos for each row execute function public.touch_updated_at();

alter table public.videos enable row level security;
alter table public.video_scenes enable row level security;
create policy owners_read on public.videos for select to authenticated
    using (owner_id::text = current_setting('request.jwt.claim.sub', true));
create policy owners_read on public.video_scenes for select to authenticated
    using (exists (select 1 from public.videos v where v.id = video_id));
grant select, insert, update, delete on public.videos, public.video_scenes to service_role, authenticated, anon;
