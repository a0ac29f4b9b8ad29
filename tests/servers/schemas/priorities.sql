-- DOMAIN.md (1): the application's own table of when each video is tracked.
create table if not exists public.view_tracking_priority (
    video_id text primary key,
    priority_tier integer not null default 4,
    last_tracked timestamptz,
    next_track_date timestamptz,
    tracking_frequency_days numeric
);
do $$ begin
    if to_regrole('service_role') is not null then
        grant all on public.view_tracking_priority to service_role; -- a Supabase project does
    end if;
end $$;
