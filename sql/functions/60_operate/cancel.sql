create or replace function outbox.cancel(subscription_id bigint, event_seq bigint, tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Ends an outstanding delivery. An attempt that is under way is not called back, but its result no longer counts.
declare
    s        outbox.subscription := outbox_relay.require_subscription(cancel.subscription_id, cancel.tenant_id);
begin
    if outbox_relay.cancel_outstanding(cancel.subscription_id, coalesce(cancel.event_seq, -1)) = 0 then
        raise exception using errcode = 'OB021',
            message = format('subscription %s has no outstanding delivery of event %s', cancel.subscription_id, coalesce(cancel.event_seq::text, 'null')),
            hint = 'Only what is pending, leased or failed can be cancelled; see outbox.delivery.';
    end if;
    perform outbox_relay.audit('cancel', s.tenant_id, cancel.subscription_id, cancel.event_seq);
    perform pg_notify('outbox_signal', 'due');      -- the next of its ordering key
end
$$;
comment on function outbox.cancel is 'Ends an outstanding delivery.';
