create or replace function outbox_relay.is_recorded(subscription_id bigint, event_seq bigint, started_at timestamptz)
returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
-- Whether the result of that attempt was recorded before: the relay tries again when an answer was lost, and by then the
-- same relay may have leased the delivery anew, under the same epoch.
-- Volatile on purpose: each call looks with a snapshot of its own, so that who waited for the delivery's row sees what
-- the other one recorded.
-- Called by record.
begin
    return exists (select from outbox.attempt a
        where a.subscription_id = is_recorded.subscription_id and a.event_seq = is_recorded.event_seq and a.started_at = is_recorded.started_at);
end
$$;
comment on function outbox_relay.is_recorded is 'Whether the result of an attempt was recorded before.';
