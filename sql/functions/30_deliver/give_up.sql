create or replace function outbox_relay.give_up(subscription_id bigint, event_seq bigint, reason text)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Moves an outstanding delivery to history as a dead letter, without an attempt; false if there is none.
-- Called by claim, for what is too old, and by park.
declare
    ended outbox_relay.queue;
begin
    delete from outbox_relay.queue q
    where q.subscription_id = give_up.subscription_id and q.event_seq = give_up.event_seq
    returning q.* into ended;
    if not found then
        return false;
    end if;
    insert into outbox_relay.finished (subscription_id, event_seq, created_at, attempts, last_status_code, state, last_error)
    values (ended.subscription_id, ended.event_seq, ended.created_at, ended.attempts, ended.last_status_code, 'dead_letter', give_up.reason);
    perform outbox_relay.dead_lettered(array[ended.subscription_id], array[ended.event_seq], array[ended.ordering_key]);
    return true;
end
$$;
comment on function outbox_relay.give_up is 'Ends an outstanding delivery as a dead letter.';
