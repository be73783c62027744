create or replace function outbox_http.send_test(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    s  outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
    id uuid := outbox.send_test(s.subscription_id, type => coalesce(request #>> '{body,type}', 'outbox.test'),
        payload => coalesce(request #> '{body,payload}', '{"test": true}'), tenant_id => tenant);
begin
    return json_build_object('event_id', id,
        'delivery_id', (select s.subscription_id || '-' || e.event_seq from outbox.event e where e.event_id = id));
end
$$;
comment on function outbox_http.send_test is 'POST /webhooks/{subscription_id}/test';
