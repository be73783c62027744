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
-- What comes late, because its transaction was open for long or because somebody replays it, can be the first
-- of its key while a later one is under way. It waits for that one too, but is not parked, because nobody would
-- release it: it is looked at again in a moment. Parked ones need no look, only their release makes them due.
--
-- The caller has locked the delivery's row, in an earlier statement: what is judged here is judged under a
-- snapshot taken after that. Called by claim.
-- Invariants: a parked delivery has an earlier one of its key in the queue, or its key is stopped; of a key one
-- delivery is leased at a time.
#variable_conflict use_variable
declare
    first   bigint;
    stopped boolean;
    later   bigint;
    parked  boolean := false;
    waits   boolean := false;
begin
    select outbox_relay.first_of_key(subscription_id, ordering_key),
           exists (select from outbox.stopped_key t where t.subscription_id = subscription_id and t.ordering_key = ordering_key)
    into first, stopped;
    if first < event_seq then
        perform from outbox_relay.queue q
        where q.subscription_id = subscription_id and q.event_seq = first for key share skip locked;
        parked := found;
    elsif stopped then
        perform from outbox.stopped_key t
        where t.subscription_id = subscription_id and t.ordering_key = ordering_key for key share skip locked;
        parked := found;
    else
        waits := exists (select from outbox_relay.queue q
            where q.subscription_id = subscription_id and q.ordering_key = ordering_key and q.state = 'leased' and q.event_seq <> event_seq);
        for later in
            select n.event_seq
            from (select q.* from outbox_relay.queue q
                  where q.ordering_key is not null and (q.subscription_id, q.ordering_key, q.event_seq) > (subscription_id, ordering_key, event_seq)
                  order by q.subscription_id, q.ordering_key, q.event_seq limit 4) n
            where n.subscription_id = subscription_id and n.ordering_key = ordering_key
              and (n.next_attempt_at is null or isfinite(n.next_attempt_at)) loop
            -- Locked, so that no other claim leases it while this one is leased.
            perform from outbox_relay.queue q
            where q.subscription_id = subscription_id and q.event_seq = later and q.epoch is null for share skip locked;
            waits := waits or not found;
        end loop;
        if not waits then
            return false;
        end if;
    end if;
    update outbox_relay.queue q
    set next_attempt_at = case when parked then 'infinity' else clock_timestamp() + interval '20 milliseconds' end, updated_at = now()
    where q.subscription_id = subscription_id and q.event_seq = event_seq;
    return true;
end
$$;
comment on function outbox_relay.park_behind is 'Lets a due delivery wait while another one of its ordering key goes before it.';
