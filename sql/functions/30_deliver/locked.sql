create or replace function outbox_relay.locked(epoch integer, subscription_ids bigint[], event_seqs bigint[])
returns table (subscription_id bigint, event_seq bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
-- Which of these leases of this epoch somebody's open transaction has locked. Waits for none of them.
-- Called by the relay when record could not get all rows of a batch: what is free is recorded at once, however many are
-- not.
#variable_conflict use_column
begin
    return query
        with held as materialized (
            select q.subscription_id, q.event_seq
            from unnest(locked.subscription_ids, locked.event_seqs) a (subscription_id, event_seq)
            join outbox_relay.queue q on q.subscription_id = any (array[a.subscription_id]) and q.event_seq = a.event_seq
            where q.epoch = locked.epoch),
        free as materialized (
            select q.subscription_id, q.event_seq
            from held h
            join outbox_relay.queue q on q.subscription_id = any (array[h.subscription_id]) and q.event_seq = h.event_seq
            for update of q skip locked)
        select h.subscription_id, h.event_seq from held h
        where (h.subscription_id, h.event_seq) not in (select f.subscription_id, f.event_seq from free f);
end
$$;
comment on function outbox_relay.locked is 'Which of these leases somebody''s open transaction has locked.';
