create or replace function outbox_http.list_webhooks(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
with page as (
    select s.* from outbox.subscription s
    where (outbox_http.tenant_of(tenant, request ->> 'tenant_id') is null or s.tenant_id = outbox_http.tenant_of(tenant, request ->> 'tenant_id'))
      and (request ->> 'cursor' is null or s.subscription_id < (outbox_http.position_of(request ->> 'cursor', 1))[1])
      and (request ->> 'active' is null or s.active = (request ->> 'active')::boolean)
      and (coalesce((request ->> 'unsubscribed')::boolean, false) or s.unsubscribed_at is null)
      and (request ->> 'search' is null or position(lower(request ->> 'search') in lower(s.name || ' ' || s.url)) > 0)
    order by s.subscription_id desc
    limit coalesce((request ->> 'limit')::integer, 50) + 1),
shown as (select * from page order by subscription_id desc limit coalesce((request ->> 'limit')::integer, 50))
select json_build_object(
    'data', (select coalesce(json_agg(outbox_http.webhook(s.*::outbox.subscription) order by s.subscription_id desc), '[]') from shown s),
    'next_cursor', case when (select count(*) from page) > (select count(*) from shown) then (select min(subscription_id) from shown)::text end)
$$;
comment on function outbox_http.list_webhooks is 'GET /webhooks';
