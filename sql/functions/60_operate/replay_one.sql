create or replace function outbox_relay.replay_one(subscription_id bigint, event_seq bigint, tenant_id text default null)
returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Sends one event to one subscription again, now, with a full schedule; returns the delivery's state.
--
--   finished          back into the queue
--   pending, failed   due now
--   leased            is being sent this moment: nothing to do
--   never created     created, if the event is the same tenant's (a subscription made later, a pause)
--
-- Closes the subscription's circuit, and lifts the stop of an ordering key that this event has stopped. At an
-- ordered subscription it goes before what is outstanding of its key, and after what is under way.
-- Called by the functions that replay, which note it in the audit.
declare
    s outbox.subscription := outbox_relay.require_subscription(replay_one.subscription_id, replay_one.tenant_id);
    e record;
begin
    if s.unsubscribed_at is not null then
        raise exception using errcode = 'OB023', message = format('subscription %s was unsubscribed', s.subscription_id),
            hint = 'Make a new one with outbox.subscribe and replay to that.';
    end if;
    update outbox_relay.queue q
    set next_attempt_at = now(), failures = 0, cause = 'replay', updated_at = now()
    where q.subscription_id = replay_one.subscription_id and q.event_seq = replay_one.event_seq and q.state <> 'leased';
    if not found and not exists (select from outbox_relay.queue q
        where q.subscription_id = replay_one.subscription_id and q.event_seq = replay_one.event_seq) then
        with again as (
            delete from outbox_relay.finished f
            where f.subscription_id = replay_one.subscription_id and f.event_seq = replay_one.event_seq returning f.*)
        insert into outbox_relay.queue (subscription_id, event_seq, created_at, attempts, last_status_code, last_error, state, cause,
            next_attempt_at, priority, ordering_key)
        select a.subscription_id, a.event_seq, a.created_at, a.attempts, a.last_status_code, a.last_error,
               case when a.attempts > 0 then 'failed' else 'pending' end, 'replay', now(), coalesce(v.priority, 0::smallint),
               case when s.ordered then outbox_relay.queue_key(v.ordering_key) end
        from again a left join outbox.event v on v.event_seq = a.event_seq;
        if not found then
            select v.tenant_id, v.addressed_to, v.priority, case when s.ordered then outbox_relay.queue_key(v.ordering_key) end as ordering_key,
                   outbox_relay.expanded_before(v.xact, v.event_seq, c.seen, c.target, c.position, c.floor_seq) as expanded into e
            from outbox.event v, lateral (select * from outbox_relay.cursor order by cursor_id desc limit 1) c
            where v.event_seq = replay_one.event_seq
              and (v.tenant_id = s.tenant_id or outbox_relay.bound_tenants() is null);     -- or it tells that the event is there
            if not found then
                raise exception using errcode = 'OB021', message = format('there is no event %s', coalesce(replay_one.event_seq::text, 'null')),
                    hint = 'Its segment may have been dropped, see the setting retention.';
            elsif e.tenant_id <> s.tenant_id or coalesce(e.addressed_to, s.subscription_id) <> s.subscription_id then
                raise exception using errcode = 'OB022', message = 'tenant mismatch',
                    hint = format('Event %s is not for the tenant of subscription %s.', replay_one.event_seq, s.subscription_id);
            elsif not e.expanded then
                raise exception using errcode = 'OB023', message = format('event %s is not expanded yet', replay_one.event_seq),
                    hint = 'It will be delivered in its turn; see outbox.explain(event_id).';
            end if;
            insert into outbox_relay.queue (subscription_id, event_seq, state, cause, next_attempt_at, priority, ordering_key)
            values (replay_one.subscription_id, replay_one.event_seq, 'pending', 'replay', now(), e.priority, e.ordering_key);
        end if;
    end if;
    perform outbox_relay.lift_stop(replay_one.subscription_id, replay_one.event_seq);
    perform outbox_relay.reset_circuit(replay_one.subscription_id);
    perform pg_notify('outbox_signal', 'due');
    return (select q.state from outbox_relay.queue q
            where q.subscription_id = replay_one.subscription_id and q.event_seq = replay_one.event_seq);
end
$$;
comment on function outbox_relay.replay_one is 'Sends one event to one subscription again, now.';
