create or replace function outbox_http.get_webhook(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select outbox_http.webhook(outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint))
$$;
comment on function outbox_http.get_webhook is 'GET /webhooks/{subscription_id}';
