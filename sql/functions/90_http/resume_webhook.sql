create or replace function outbox_http.resume_webhook(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    s outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
begin
    perform outbox.resume(s.subscription_id, tenant_id => tenant);
    return outbox_http.webhook(outbox_http.find_webhook(tenant, s.subscription_id));
end
$$;
comment on function outbox_http.resume_webhook is 'POST /webhooks/{subscription_id}/resume';
