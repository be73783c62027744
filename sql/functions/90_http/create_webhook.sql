create or replace function outbox_http.create_webhook(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    b       jsonb := request -> 'body';
    created outbox.new_subscription;
begin
    perform outbox_http.refuse_reference(tenant, b);
    select * into created from outbox.subscribe(b ->> 'url', array(select jsonb_array_elements_text(b -> 'event_types')),
        tenant_id => coalesce(outbox_http.tenant_of(tenant, b ->> 'tenant_id'), 'default'), name => b ->> 'name', secret => b ->> 'secret',
        filter => b ->> 'filter', headers => coalesce(b -> 'headers', '{}'), signature => coalesce(b ->> 'signature', 'standard'),
        envelope => coalesce(b ->> 'envelope', 'standard'), retry_policy => b ->> 'retry_policy', timeout => (b ->> 'timeout')::interval,
        max_in_flight => (b ->> 'max_in_flight')::integer, rate_limit => (b ->> 'rate_limit')::numeric,
        ordered => coalesce((b ->> 'ordered')::boolean, false), description => b ->> 'description', signature_header => b ->> 'signature_header',
        tls => b -> 'tls', secret_ref => b ->> 'secret_ref');
    return json_build_object('webhook', outbox_http.webhook(outbox_http.find_webhook(tenant, created.subscription_id)),
        'secret', created.secret, 'key_id', created.key_id);
end
$$;
comment on function outbox_http.create_webhook is 'POST /webhooks';
