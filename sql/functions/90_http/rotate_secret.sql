create or replace function outbox_http.rotate_secret(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    s       outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
    created outbox.new_key;
begin
    perform outbox_http.refuse_reference(tenant, request -> 'body');
    select * into created from outbox.rotate_secret(s.subscription_id, overlap => (request #>> '{body,overlap}')::interval,
        secret => request #>> '{body,secret}', tenant_id => tenant, secret_ref => request #>> '{body,secret_ref}');
    return json_build_object('secret', created.secret, 'key_id', created.key_id, 'keys', outbox_http.live_keys(s.subscription_id));
end
$$;
comment on function outbox_http.rotate_secret is 'POST /webhooks/{subscription_id}/rotate-secret';
