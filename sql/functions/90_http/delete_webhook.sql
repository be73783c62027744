create or replace function outbox_http.delete_webhook(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    s outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
begin
    return json_build_object('cancelled', outbox.unsubscribe(s.subscription_id, tenant_id => tenant));
end
$$;
comment on function outbox_http.delete_webhook is 'DELETE /webhooks/{subscription_id}';
