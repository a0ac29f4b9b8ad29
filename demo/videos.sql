-- DOMAIN.md (1): a YouTube research app, the default schema of `video-summaries`, of the demo and of the tests.
create table if not exists public.videos (
    id text primary key,
    title text not null,
    description text,
    channel_id text not null,
    channel_name text,
    published_at timestamptz,
    view_count bigint,
    like_count bigint,
    comment_count bigint,
    duration text,
    thumbnail_url text,
    metadata jsonb,
    updated_at timestamptz not null default now(),
    llm_summary text,
    llm_summary_generated_at timestamptz,
    llm_summary_model text,
    llm_summary_embedding_synced boolean default false,
    pinecone_embedded boolean,
    embedding_thumbnail_synced boolean
);
do $$ begin
    if to_regrole('service_role') is not null then
        grant all on public.videos to service_role; -- a Supabase project does
    end if;
end $$;
