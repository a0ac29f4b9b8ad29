-- DOMAIN.md (1): the snapshots of view counts beside videos.sql. priorities.sql is the table that says when.
create table if not exists public.view_snapshots (
    video_id text not null references public.videos on delete cascade,
    snapshot_date date not null,
    view_count bigint not null,
    like_count bigint,
    comment_count bigint,
    days_since_published integer,
    daily_views_rate numeric,
    unique (video_id, snapshot_date)
);
do $$ begin
    if to_regrole('service_role') is not null then
        grant all on public.view_snapshots to service_role; -- a Supabase project does
    end if;
end $$;
