create or replace function outbox.park(subscription_id bigint, event_seq bigint, tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Sets an event aside that stands in the way of its ordering key (or of nothing): an outstanding delivery
-- becomes a dead letter without further attempts, and the key goes on with the next, whatever the setting
-- ordered_on_dead_letter says. outbox.replay or outbox.replay_failed send it later, out of order.
declare
    s        outbox.subscription := outbox_relay.require_subscription(park.subscription_id, park.tenant_id);
    given_up boolean;
    lifted   boolean;
begin
    given_up := outbox_relay.give_up(park.subscription_id, park.event_seq, 'parked');
    lifted := outbox_relay.lift_stop(park.subscription_id, park.event_seq);
    -- A stop may be older than the history of its event.
    if not given_up and not lifted and not exists (select from outbox_relay.finished f
            where f.subscription_id = park.subscription_id and f.event_seq = park.event_seq and f.state = 'dead_letter') then
        raise exception using errcode = 'OB021',
            message = format('subscription %s has no delivery of event %s to park', park.subscription_id, coalesce(park.event_seq::text, 'null')),
            hint = 'It is one that is outstanding or a dead letter; see outbox.delivery.';
    end if;
    perform outbox_relay.audit('park', s.tenant_id, park.subscription_id, park.event_seq);
    perform pg_notify('outbox_signal', 'due');
end
$$;
comment on function outbox.park is 'Makes a delivery a dead letter, for later, and lets its ordering key go on.';
