create or replace function outbox_relay.lift_stop(subscription_id bigint, event_seq bigint)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Lets the ordering key go on that this event has stopped; false if it has stopped none.
-- Called by skip, park and replay.
declare
    lifted text;
begin
    delete from outbox.stopped_key t
    where t.subscription_id = lift_stop.subscription_id and t.event_seq = lift_stop.event_seq
    returning t.ordering_key into lifted;
    if not found then
        return false;
    end if;
    perform outbox_relay.release_next(array[lift_stop.subscription_id], array[lifted]);
    return true;
end
$$;
comment on function outbox_relay.lift_stop is 'Lets a stopped ordering key go on.';
