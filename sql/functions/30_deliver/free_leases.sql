create or replace function outbox_relay.free_leases(epoch integer, subscription_ids bigint[], event_seqs bigint[])
returns table (subscription_id bigint, event_seq bigint, cause text, attempts integer, is_left boolean)
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
-- Ends leases: due at once, for whoever claims them. Returns those that were still leased under this epoch; is_left:
-- somebody's open transaction has the row locked, try again.
-- Called by hand_back and fence.
#variable_conflict use_column
begin
    return query
        with held as materialized (
            select q.subscription_id, q.event_seq, q.cause, q.attempts
            from unnest(free_leases.subscription_ids, free_leases.event_seqs) a (subscription_id, event_seq)
            join outbox_relay.queue q on q.subscription_id = any (array[a.subscription_id]) and q.event_seq = a.event_seq
            where q.epoch = free_leases.epoch),
        locked as materialized (
            select q.subscription_id, q.event_seq
            from held h
            join outbox_relay.queue q on q.subscription_id = any (array[h.subscription_id]) and q.event_seq = h.event_seq
            where q.epoch = free_leases.epoch for update of q skip locked),
        due as (
            update outbox_relay.queue q
            set state = case when q.attempts > 0 then 'failed' else 'pending' end, epoch = null, next_attempt_at = now(), updated_at = now()
            from locked l
            where q.subscription_id = any (array[l.subscription_id]) and q.event_seq = l.event_seq
            returning q.subscription_id, q.event_seq)
        select h.subscription_id, h.event_seq, h.cause, h.attempts, d.event_seq is null from held h left join due d using (subscription_id, event_seq);
    if found then
        perform pg_notify('outbox_signal', 'due');
    end if;
end
$$;
comment on function outbox_relay.free_leases is 'Ends leases without a result; what was leased is due at once.';
