create or replace function outbox_relay.require_tenant(tenant_id text)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Refuses to act for a tenant that the caller is not bound to; null, which is all, is none of them.
-- Called by what makes something for a tenant; outbox_relay.require_subscription does the same for what is there.
declare
    bound text[] := outbox_relay.bound_tenants();
begin
    if not coalesce(require_tenant.tenant_id, '') = any (bound) then
        raise exception using errcode = 'OB022', message = 'tenant mismatch',
            hint = format('This role is bound to %s: name it, as tenant_id => %L.', array_to_string(bound, ', '), coalesce(bound[1], ''));
    end if;
end
$$;
comment on function outbox_relay.require_tenant is 'Refuses to act for a tenant that the caller is not bound to.';
