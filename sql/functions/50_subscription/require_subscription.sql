create or replace function outbox_relay.require_subscription(subscription_id bigint, tenant_id text)
returns outbox.subscription
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- The subscription, locked for change; raises if there is none, or if a tenant is named that it does
-- not belong to. To who is bound to tenants, those of others do not exist, and are not locked. Every operator function begins here; a change of one that was unsubscribed is refused by the
-- trigger on outbox.subscription.
declare
    s     outbox.subscription;
    bound constant text[] := outbox_relay.bound_tenants();
begin
    select * into s from outbox.subscription t
    where t.subscription_id = require_subscription.subscription_id and coalesce(t.tenant_id = any (bound), true) for no key update;
    if not found then
        raise exception using errcode = 'OB020', message = format('there is no subscription %s', coalesce(require_subscription.subscription_id::text, 'null')),
            hint = 'See select subscription_id, tenant_id, name from outbox.subscription.';
    elsif s.tenant_id <> require_subscription.tenant_id then
        raise exception using errcode = 'OB022', message = 'tenant mismatch',
            hint = format('Subscription %s does not belong to the tenant named in the call.', s.subscription_id);
    end if;
    return s;
end
$$;
comment on function outbox_relay.require_subscription is 'A subscription locked for change, or an error that says why not.';
