create or replace function outbox_relay.disable(subscription_ids bigint[], reason text)
returns setof bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Stops subscriptions that cannot be delivered to, tells so, and returns those it stopped. One that somebody
-- is changing just now is left for the next time.
-- Called by record, for an endpoint that answered 410, and by maintain, for one that has failed for too long.
declare
    s outbox.subscription;
begin
    perform set_config('outbox.actor', 'relay', true);
    for s in select t.* from outbox.subscription t
             where t.subscription_id = any (disable.subscription_ids) and t.active for no key update skip locked loop
        update outbox.subscription t set active = false, disabled_at = now(), disabled_reason = disable.reason
        where t.subscription_id = s.subscription_id;
        insert into outbox.subscription_health as h (subscription_id, to_recover) values (s.subscription_id, true)
        on conflict on constraint subscription_health_pkey do update set to_recover = true;
        perform outbox_relay.tell(s.tenant_id, 'outbox.subscription.disabled', jsonb_build_object(
            'subscription_id', s.subscription_id, 'subscription', s.name, 'tenant_id', s.tenant_id, 'reason', disable.reason,
            'failing_since', (select h.failing_since from outbox.subscription_health h where h.subscription_id = s.subscription_id)));
        return next s.subscription_id;
    end loop;
end
$$;
comment on function outbox_relay.disable is 'Stops subscriptions that cannot be delivered to, and tells so.';
