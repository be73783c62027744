create or replace function outbox.skip(subscription_id bigint, event_seq bigint, tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Passes over an event that stands in the way of its ordering key (or of nothing): an outstanding delivery is
-- cancelled, a dead letter becomes cancelled too, and the key goes on with the next. It is not replayed by
-- outbox.replay_failed; outbox.replay still can.
declare
    s        outbox.subscription := outbox_relay.require_subscription(skip.subscription_id, skip.tenant_id);
    lifted boolean;
begin
    lifted := outbox_relay.lift_stop(skip.subscription_id, skip.event_seq);
    if outbox_relay.cancel_outstanding(skip.subscription_id, coalesce(skip.event_seq, -1), reason => 'skipped') = 0 then
        update outbox_relay.finished f set state = 'cancelled'
        where f.subscription_id = skip.subscription_id and f.event_seq = skip.event_seq and f.state = 'dead_letter';
        -- A stop may be older than the history of its event.
        if not found and not lifted then
            raise exception using errcode = 'OB021',
                message = format('subscription %s has no delivery of event %s to skip', skip.subscription_id, coalesce(skip.event_seq::text, 'null')),
                hint = 'It is one that is outstanding or a dead letter; see outbox.delivery.';
        end if;
    end if;
    perform outbox_relay.audit('skip', s.tenant_id, skip.subscription_id, skip.event_seq);
    perform pg_notify('outbox_signal', 'due');
end
$$;
comment on function outbox.skip is 'Cancels a delivery, outstanding or given up, and lets its ordering key go on.';
