create or replace function outbox_http.list_retry_policies(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select json_build_object('data', coalesce(json_agg(json_build_object('name', p.name,
    'delays_seconds', array(select extract(epoch from d.delay)::double precision from unnest(p.delays) with ordinality d (delay, place) order by d.place),
    'jitter', p.jitter, 'max_age_seconds', extract(epoch from p.max_age)::double precision) order by p.name), '[]'))
from outbox.retry_policy p
$$;
comment on function outbox_http.list_retry_policies is 'GET /retry-policies';
