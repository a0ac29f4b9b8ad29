-- Which of these rows a target has ever written, whatever became of them since: what lies under another key is not its own.

create or replace function public.catchup_known_keys(p text) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('keys', coalesce(jsonb_agg(v.key::jsonb), '[]'))
    from catchup.provenance v join catchup.targets g using (target_no)
    where g.target = p::jsonb->0->>'target'
      and v.key = any (array(select e.key::text from jsonb_array_elements(p::jsonb->0->'keys') as e(key)))
$$;
