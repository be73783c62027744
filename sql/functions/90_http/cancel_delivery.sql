create or replace function outbox_http.cancel_delivery(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    d outbox.delivery := outbox_http.find_delivery(tenant, request ->> 'delivery_id');
begin
    perform outbox.cancel(d.subscription_id, d.event_seq, tenant_id => tenant);
    return outbox_http.delivery(outbox_http.find_delivery(tenant, request ->> 'delivery_id'));
end
$$;
comment on function outbox_http.cancel_delivery is 'POST /deliveries/{delivery_id}/cancel';
