create or replace function outbox_http.list_webhook_deliveries(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select outbox_http.deliveries(tenant, request)
$$;
comment on function outbox_http.list_webhook_deliveries is 'GET /webhooks/{subscription_id}/deliveries';
