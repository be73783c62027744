create or replace function outbox.replay(subscription_id bigint, event_seq bigint, tenant_id text default null)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
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
declare
    s outbox.subscription := outbox_relay.require_subscription(replay.subscription_id, replay.tenant_id);
    e record;
begin
    if s.unsubscribed_at is not null then
        raise exception using errcode = 'OB023', message = format('subscription %s was unsubscribed', s.subscription_id),
            hint = 'Make a new one with outbox.subscribe and replay to that.';
    end if;
    update outbox_relay.queue q
    set next_attempt_at = now(), failures = 0, cause = 'replay', updated_at = now()
    where q.subscription_id = replay.subscription_id and q.event_seq = replay.event_seq and q.state <> 'leased';
    if not found and not exists (select from outbox_relay.queue q
        where q.subscription_id = replay.subscription_id and q.event_seq = replay.event_seq) then
        with again as (
            delete from outbox_relay.finished f
            where f.subscription_id = replay.subscription_id and f.event_seq = replay.event_seq returning f.*)
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
            where v.event_seq = replay.event_seq;
            if not found then
                raise exception using errcode = 'OB021', message = format('there is no event %s', coalesce(replay.event_seq::text, 'null')),
                    hint = 'Its segment may have been dropped, see the setting retention.';
            elsif e.tenant_id <> s.tenant_id or coalesce(e.addressed_to, s.subscription_id) <> s.subscription_id then
                raise exception using errcode = 'OB022', message = 'tenant mismatch',
                    hint = format('Event %s is not for the tenant of subscription %s.', replay.event_seq, s.subscription_id);
            elsif not e.expanded then
                raise exception using errcode = 'OB023', message = format('event %s is not expanded yet', replay.event_seq),
                    hint = 'It will be delivered in its turn; see outbox.explain(event_id).';
            end if;
            insert into outbox_relay.queue (subscription_id, event_seq, state, cause, next_attempt_at, priority, ordering_key)
            values (replay.subscription_id, replay.event_seq, 'pending', 'replay', now(), e.priority, e.ordering_key);
        end if;
    end if;
    perform outbox_relay.lift_stop(replay.subscription_id, replay.event_seq);
    perform outbox_relay.reset_circuit(replay.subscription_id);
    perform pg_notify('outbox_signal', 'due');
    return (select q.state from outbox_relay.queue q
            where q.subscription_id = replay.subscription_id and q.event_seq = replay.event_seq);
end
$$;
comment on function outbox.replay(bigint, bigint, text) is 'Sends an event to a subscription again, now; the attempt log keeps both runs. Made to compose with a query over outbox.delivery.';

create or replace function outbox.replay(event_id uuid, subscription_id bigint default null, tenant_id text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Sends an event again to every subscription that has a delivery of it, or to the one named; returns how many.
declare
    replayed bigint;
begin
    if not exists (select from outbox.event e where e.event_id = replay.event_id) then
        raise exception using errcode = 'OB021', message = format('there is no event %s', coalesce(replay.event_id::text, 'null')),
            hint = 'Its segment may have been dropped, see the setting retention.';
    elsif replay.tenant_id is not null
        and not exists (select from outbox.event e where e.event_id = replay.event_id and e.tenant_id = replay.tenant_id) then
        raise exception using errcode = 'OB022', message = 'tenant mismatch',
            hint = 'The event does not belong to the tenant named in the call.';
    end if;
    select count(outbox.replay(d.subscription_id, e.event_seq, e.tenant_id)) into replayed
    from outbox.event e
    cross join lateral (
        select replay.subscription_id where replay.subscription_id is not null
        union all
        select v.subscription_id from outbox.delivery v
        join outbox.subscription s on s.subscription_id = v.subscription_id and s.unsubscribed_at is null
        where replay.subscription_id is null and v.event_seq = e.event_seq) d
    where e.event_id = replay.event_id and e.tenant_id = coalesce(replay.tenant_id, e.tenant_id);
    return replayed;
end
$$;
comment on function outbox.replay(uuid, bigint, text) is 'Sends an event again to the subscription named, or to all that had it.';
