create or replace function outbox_relay.require_all_tenants()
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Refuses what is about all tenants to whoever is bound to some. Called first by each function that is.
begin
    if outbox_relay.bound_tenants() is not null then
        raise exception using errcode = 'OB080', message = 'this is about all tenants, and the role is bound to some',
            hint = 'Ask somebody whose role outbox.bind_role has not bound; see docs/tenants.md.';
    end if;
end
$$;
comment on function outbox_relay.require_all_tenants is 'Refuses what is about all tenants to whoever is bound to some.';
