create or replace function outbox_relay.release_next(subscription_ids bigint[], ordering_keys text[])
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- After a delivery of these ordering keys (parallel arrays) left the queue, or a stop was lifted: what is now
-- the first of its key is due, if it was parked and the key is not stopped. Returns whether there was any.
--
-- Must be a statement after the one that removed the delivery, in the same transaction: whoever parks
-- something behind that delivery holds a key share lock on it until the parking is committed, the removal
-- waits for that lock, and so this statement sees what was parked. See outbox_relay.park_behind.
-- Called by record, claim, cancel_outstanding, skip, park, replay.
begin
    -- Two that leave the queue at once would each take the other for the first: the second waits here for the
    -- first to commit, and looks afterwards.
    perform pg_advisory_xact_lock(1869968484, k.lock)
    from (select distinct hashtext(f.subscription_id || ':' || f.ordering_key) as lock
          from unnest(release_next.subscription_ids, release_next.ordering_keys) f (subscription_id, ordering_key)
          where f.ordering_key is not null order by lock) k;
    with freed as (
        select distinct f.subscription_id, f.ordering_key
        from unnest(release_next.subscription_ids, release_next.ordering_keys) f (subscription_id, ordering_key)
        where f.ordering_key is not null
          and not exists (select from outbox.stopped_key t where t.subscription_id = f.subscription_id and t.ordering_key = f.ordering_key))
    update outbox_relay.queue q
    set next_attempt_at = greatest(now(), (select e.deliver_at from outbox.event e where e.event_seq = q.event_seq)), updated_at = now()
    from freed f
    cross join lateral outbox_relay.first_of_key(f.subscription_id, f.ordering_key) n (event_seq)
    where q.subscription_id = any (array[f.subscription_id]) and q.event_seq = n.event_seq
      and not isfinite(q.next_attempt_at);        -- not = 'infinity', which could be looked up in queue_due_idx
    return found;
end
$$;
comment on function outbox_relay.release_next is 'Makes the next delivery of ordering keys due.';
