create or replace function outbox.send_test(subscription_id bigint, type text default 'outbox.test', payload jsonb default '{"test": true}', tenant_id text default null)
returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Sends a synthetic event to this subscription alone, once, even if it is paused. Returns its event_id.
-- The event is addressed: expand creates nothing from it, the delivery is queued here.
declare
    s      outbox.subscription := outbox_relay.require_subscription(send_test.subscription_id, send_test.tenant_id);
    new_id uuid;
    seq    bigint;
begin
    if s.unsubscribed_at is not null then
        raise exception using errcode = 'OB023', message = format('subscription %s was unsubscribed', s.subscription_id),
            hint = 'Make a new one with outbox.subscribe.';
    end if;
    insert into outbox.event as e (tenant_id, type, payload, addressed_to)
    values (s.tenant_id, coalesce(send_test.type, 'outbox.test'), coalesce(send_test.payload, '{"test": true}'), s.subscription_id)
    returning e.event_id, e.event_seq into new_id, seq;
    insert into outbox_relay.queue (subscription_id, event_seq, state, cause, next_attempt_at)
    values (s.subscription_id, seq, 'pending', 'test', now());
    perform outbox_relay.audit('send_test', s.tenant_id, s.subscription_id, seq);
    perform pg_notify('outbox_signal', 'due');
    return new_id;
end
$$;
comment on function outbox.send_test is 'A synthetic event to this subscription alone, even if paused; one attempt, never counted in its health.';
