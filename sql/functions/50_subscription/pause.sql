create or replace function outbox.pause(subscription_id bigint, reason text default 'paused', tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Stops a subscription: nothing new is created or sent, what is outstanding waits. Pausing twice changes nothing,
-- but for what reconcile has paused: that is now by hand, and stays when the configuration names it again.
declare
    s outbox.subscription := outbox_relay.require_subscription(pause.subscription_id, pause.tenant_id);
begin
    if s.active or s.unsubscribed_at is not null then      -- the latter is refused by the trigger
        update outbox.subscription t set active = false, disabled_at = now(), disabled_reason = pause.reason
        where t.subscription_id = pause.subscription_id;
    elsif s.disabled_reason = 'no longer in the configuration' then
        update outbox.subscription t set disabled_reason = pause.reason where t.subscription_id = pause.subscription_id;
    end if;
end
$$;
comment on function outbox.pause is 'Nothing new is created or sent for the subscription; what is outstanding waits.';
