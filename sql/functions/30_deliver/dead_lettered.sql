create or replace function outbox_relay.dead_lettered(subscription_ids bigint[], event_seqs bigint[], ordering_keys text[])
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- What follows when deliveries (parallel arrays) have become dead letters: an ordering key stops or goes on, as
-- the setting ordered_on_dead_letter says, and whoever has subscribed to it is told.
--
-- outboxd's own events are not told of when they fail, nor are tests: there would be no end to it.
-- Returns whether another delivery is due because of it. Called by record, expand and give_up,
-- in a statement after the one that ended the deliveries.
declare
    released boolean := false;
begin
    if (select value = 'stop' from outbox.setting where name = 'ordered_on_dead_letter') then
        insert into outbox.stopped_key (subscription_id, ordering_key, event_seq)
        select d.subscription_id, d.ordering_key, d.event_seq
        from unnest(dead_lettered.subscription_ids, dead_lettered.event_seqs, dead_lettered.ordering_keys) d (subscription_id, event_seq, ordering_key)
        where d.ordering_key is not null
        on conflict do nothing;
    else
        released := outbox_relay.release_next(dead_lettered.subscription_ids, dead_lettered.ordering_keys);
    end if;
    perform outbox_relay.tell(s.tenant_id, 'outbox.delivery.dead_letter', jsonb_build_object(
        'subscription_id', s.subscription_id, 'subscription', s.name, 'tenant_id', s.tenant_id,
        'event_id', e.event_id, 'event_seq', e.event_seq, 'event_type', e.type,
        'attempts', f.attempts, 'last_status_code', f.last_status_code, 'last_error', f.last_error))
    from unnest(dead_lettered.subscription_ids, dead_lettered.event_seqs) d (subscription_id, event_seq)
    join outbox.subscription s on s.subscription_id = d.subscription_id
    join outbox.event e on e.event_seq = d.event_seq and e.addressed_to is null and not starts_with(e.type, 'outbox.')
    join outbox_relay.finished f on f.subscription_id = d.subscription_id and f.event_seq = d.event_seq;
    return released;
end
$$;
comment on function outbox_relay.dead_lettered is 'What follows when deliveries have become dead letters.';
