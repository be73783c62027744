create or replace function outbox_relay.hand_back(epoch integer, subscription_ids bigint[], event_seqs bigint[])
returns table (subscription_id bigint, event_seq bigint, is_left boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Hands leases back that have not begun: due at once, for whoever claims them, and as if they had never been claimed.
-- Returns those that were still leased under this epoch; is_left: somebody's open transaction has the row locked, try
-- again.
-- To be called once for a lease: a second time it might be a later lease of the same delivery that is handed back.
-- Called by the relay with a tick.
declare
    unmade_ids bigint[] := '{}';
    probe_ids  bigint[] := '{}';
    cause      text;
    attempts   integer;
begin
    perform outbox_relay.require_read_committed();
    for subscription_id, event_seq, cause, attempts, is_left in
        select f.subscription_id, f.event_seq, f.cause, f.attempts, f.is_left
        from outbox_relay.free_leases(hand_back.epoch, hand_back.subscription_ids, hand_back.event_seqs) f
    loop
        -- Tests are not counted: charge has not booked them.
        if not is_left and cause <> 'test' then
            unmade_ids := unmade_ids || subscription_id;
            -- A probe is what was never attempted: retries keep to their schedule whatever the circuit.
            if attempts = 0 then
                probe_ids := probe_ids || subscription_id;
            end if;
        end if;
        return next;
    end loop;
    perform outbox_relay.uncharge(unmade_ids, probe_ids);
end
$$;
comment on function outbox_relay.hand_back is 'Hands leases back that have not begun.';
