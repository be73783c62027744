create or replace function outbox_relay.cancel_outstanding(
    subscription_id bigint, event_seq bigint default null, reason text default null, leased_too boolean default true)
returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Moves outstanding deliveries of a subscription, or one of them, from the queue to history as cancelled,
-- and returns how many. Called by cancel, skip, unsubscribe and maintain.
declare
    cancelled  bigint;
    freed_keys text[];
begin
    with ended as (
        delete from outbox_relay.queue q
        where q.subscription_id = cancel_outstanding.subscription_id
          and (cancel_outstanding.event_seq is null or q.event_seq = cancel_outstanding.event_seq)
          and (cancel_outstanding.leased_too or q.state <> 'leased')
        returning q.*),
    kept as (
        insert into outbox_relay.finished (subscription_id, event_seq, created_at, attempts, last_status_code, state, last_error)
        select e.subscription_id, e.event_seq, e.created_at, e.attempts, e.last_status_code, 'cancelled',
               coalesce(cancel_outstanding.reason, e.last_error)
        from ended e)
    select count(*), array_agg(e.ordering_key) filter (where e.ordering_key is not null) into cancelled, freed_keys from ended e;
    -- Where all is cancelled there is no next one.
    if cancel_outstanding.event_seq is not null and freed_keys is not null then
        perform outbox_relay.release_next(array[cancel_outstanding.subscription_id], freed_keys);
    end if;
    return cancelled;
end
$$;
comment on function outbox_relay.cancel_outstanding is 'Moves outstanding deliveries of a subscription to history as cancelled.';
