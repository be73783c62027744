create or replace function outbox.pause(subscription_id bigint, reason text default 'paused', tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Stops a subscription: nothing new is created or sent, what is outstanding waits. Pausing twice changes nothing.
begin
    if (outbox_relay.require_subscription(pause.subscription_id, pause.tenant_id)).active then
        update outbox.subscription s set active = false, disabled_at = now(), disabled_reason = pause.reason
        where s.subscription_id = pause.subscription_id;
    end if;
end
$$;
comment on function outbox.pause is 'Nothing new is created or sent for the subscription; what is outstanding waits.';
