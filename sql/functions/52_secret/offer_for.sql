create or replace function outbox_relay.offer_for(subscription_id bigint, tenant_id text)
returns table (id bigint, signature text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- What the daemon seals a secret for: the subscription and its profile, or without one the id that a new one will
-- have. No row if the tenant has none of that id. Called by the HTTP API before it makes an offer.
begin
    if offer_for.subscription_id is null then
        return query select nextval(pg_get_serial_sequence('outbox.subscription', 'subscription_id')), null::text;
    else
        return query select s.subscription_id, s.signature from outbox.subscription s
        where s.subscription_id = offer_for.subscription_id and (offer_for.tenant_id is null or s.tenant_id = offer_for.tenant_id);
    end if;
end
$$;
comment on function outbox_relay.offer_for is 'What the daemon seals a secret for.';
