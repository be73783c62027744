create or replace function outbox.unsubscribe(subscription_id bigint, tenant_id text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Ends a subscription for good, cancels what is outstanding, keeps history; returns how many were cancelled.
-- What a batch under way still creates for it is cancelled by outbox_relay.maintain: waiting for the batch
-- here would let an operator's open transaction stop every expand.
declare
    cancelled bigint;
begin
    perform outbox_relay.require_unmanaged(outbox_relay.require_subscription(unsubscribe.subscription_id, unsubscribe.tenant_id));
    update outbox.subscription s
    set active = false, unsubscribed_at = now(), disabled_at = coalesce(s.disabled_at, now()), disabled_reason = 'unsubscribed'
    where s.subscription_id = unsubscribe.subscription_id;
    cancelled := outbox_relay.cancel_outstanding(unsubscribe.subscription_id, reason => 'unsubscribed');
    delete from outbox.stopped_key t where t.subscription_id = unsubscribe.subscription_id;
    update outbox.signing_key k set revoked_at = now() where k.subscription_id = unsubscribe.subscription_id and k.revoked_at is null;
    return cancelled;
end
$$;
comment on function outbox.unsubscribe is 'Ends a subscription, cancels what is outstanding, keeps history.';
