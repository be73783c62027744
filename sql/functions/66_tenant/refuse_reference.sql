create or replace function outbox_relay.refuse_reference(what text)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Refuses a name of something on the relays' hosts to whoever is bound to tenants: the names are everybody's, and who
-- may name another tenant's secret can have the relay sign or authenticate with it. Called by add_key and by the
-- trigger on outbox.subscription.
begin
    if outbox_relay.bound_tenants() is not null then
        raise exception using errcode = 'OB080', message = format('%s names what stands on the relays'' hosts, for all tenants, and the role or token is bound to some', what),
            hint = 'Pass the secret itself, or leave it out and one is made; or ask somebody who is not bound to set the reference. See docs/tenants.md.';
    end if;
end
$$;
comment on function outbox_relay.refuse_reference is 'Refuses a reference to the relays'' hosts to whoever is bound to tenants.';
