create or replace function outbox_relay.ring() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Rings the doorbell: the notification leaves with the commit of the writer.
--
-- A relay holds advisory lock (1869968482, 1) exclusively while, and only while, it sleeps. The
-- trigger's condition tries for the same lock in shared mode, which a writer then keeps until its
-- commit is visible:
--   relay awake   the writer gets the lock, nothing is notified, and the relay cannot fall asleep
--                 until the writer's events can be seen (it needs the lock exclusively, then looks once more)
--   relay asleep  the writer does not get the lock, and rings
-- Rejected: NOTIFY in every transaction. Committers that notify queue up behind one lock of the whole
-- database, held through the flush: 0.06 to 0.35 of the writers' throughput.
begin
    -- PREPARE TRANSACTION refuses a transaction that notified: a session that uses it sets outbox.quiet to on,
    -- and its events are found by polling.
    if current_setting('outbox.quiet', true) = 'on' then
        return null;
    end if;
    perform pg_notify('outbox_bell', '');
    return null;
end
$$;
comment on function outbox_relay.ring is 'Trigger: wakes the relay that sleeps.';

create or replace trigger event_doorbell before insert on outbox.event for each statement
when (not pg_try_advisory_xact_lock_shared(1869968482, 1))
execute function outbox_relay.ring();
comment on trigger event_doorbell on outbox.event is 'Notifies only while a relay sleeps; otherwise costs one shared lock.';
