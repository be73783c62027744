create or replace function outbox_relay.fence(epoch integer)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Ends an epoch: what it had leased is due at once, for whoever claims it. Returns how many deliveries.
--
-- The exclusive lock waits for an expand or claim under way, which hold it shared and look at fenced_at
-- after they got it: no lease can be born to a fenced epoch. A record under way needs no lock: it and
-- this update meet on each delivery's row, and whoever comes second finds the lease gone.
-- Called by tick for the dead, and by a relay for itself when it has drained.
declare
    handed_back integer;
begin
    perform outbox_relay.require_read_committed();
    perform pg_advisory_xact_lock(1869968482, 4);
    if not exists (select from outbox_relay.relay r where r.epoch = fence.epoch and r.fenced_at is null) then
        return 0;
    end if;
    select count(*) filter (where not h.is_left) into handed_back
    from (select array_agg(q.subscription_id) as ids, array_agg(q.event_seq) as seqs from outbox_relay.queue q where q.epoch = fence.epoch) l,
        lateral outbox_relay.free_leases(fence.epoch, l.ids, l.seqs) h;
    -- What an operator's open transaction has locked is handed back by a later call.
    if not exists (select from outbox_relay.queue q where q.epoch = fence.epoch) then
        update outbox_relay.relay r set fenced_at = now() where r.epoch = fence.epoch;
        -- When the retries that it has recorded are due, nobody else may know: a claim tells.
        perform pg_notify('outbox_signal', 'due');
    end if;
    return handed_back;
end
$$;
comment on function outbox_relay.fence is 'Ends a relay''s epoch and hands its leases back.';
