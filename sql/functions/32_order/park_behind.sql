create or replace function outbox_relay.park_behind(subscription_id bigint, event_seq bigint, ordering_key text)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Whether a due delivery of an ordering key must wait; if so it is parked, and whoever ends what it waits
-- for makes it due again (outbox_relay.release_next). It waits for any earlier delivery of its key that is in
-- the queue, and for a stop.
--
-- Nothing may be parked behind what is just being removed: that transaction has looked for its successor
-- already. So the delivery to wait for (or the stop) is locked against removal while parking, and if it
-- cannot be locked, because it is being removed, the judgement is put off for a moment.
-- Rejected: a judgement without that lock, and a sweep for what it leaves behind.
--
-- The caller has locked the delivery's row, in an earlier statement: what is judged here is judged under a
-- snapshot taken after that. Called by claim.
-- Invariant: a parked delivery has an earlier one of its key in the queue, or its key is stopped.
#variable_conflict use_variable
declare
    first   bigint;
    stopped boolean;
begin
    select outbox_relay.first_of_key(subscription_id, ordering_key),
           exists (select from outbox.stopped_key t where t.subscription_id = subscription_id and t.ordering_key = ordering_key)
    into first, stopped;
    if first < event_seq then
        perform from outbox_relay.queue q
        where q.subscription_id = subscription_id and q.event_seq = first for key share skip locked;
    elsif stopped then
        perform from outbox.stopped_key t
        where t.subscription_id = subscription_id and t.ordering_key = ordering_key for key share skip locked;
    else
        return false;
    end if;
    update outbox_relay.queue q
    set next_attempt_at = case when found then 'infinity' else clock_timestamp() + interval '20 milliseconds' end, updated_at = now()
    where q.subscription_id = subscription_id and q.event_seq = event_seq;
    return true;
end
$$;
comment on function outbox_relay.park_behind is 'Parks a due delivery if an earlier one of its ordering key is outstanding.';
