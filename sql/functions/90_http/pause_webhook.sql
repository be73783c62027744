create or replace function outbox_http.pause_webhook(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    s outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
begin
    perform outbox.pause(s.subscription_id, reason => coalesce(request #>> '{body,reason}', 'paused'), tenant_id => tenant);
    return outbox_http.webhook(outbox_http.find_webhook(tenant, s.subscription_id));
end
$$;
comment on function outbox_http.pause_webhook is 'POST /webhooks/{subscription_id}/pause';
