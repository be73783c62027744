create or replace function outbox_relay.guard_event() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Puts the rules of an acceptable event (outbox_relay.is_unacceptable) before outbox.event, with the current limit of
-- the payload.
--
-- AFTER, not BEFORE: a BEFORE ROW trigger would make COPY insert row by row. A row that is acceptable queues nothing.
-- Called by migrate and when max_payload_bytes changes; takes SHARE ROW EXCLUSIVE on outbox.event
-- until the caller commits, and gives up after two seconds of waiting for it.
declare
    before_lock text := current_setting('lock_timeout');
begin
    perform set_config('lock_timeout', '2s', true);
    execute format($ddl$
        create or replace trigger event_acceptable after insert on outbox.event for each row
        when (outbox_relay.is_unacceptable(new.type, new.tenant_id, new.payload, new.occurred_at, new.xact, %s))
        execute function outbox_relay.refuse_event()$ddl$,
        (select value::integer from outbox.setting where name = 'max_payload_bytes'));
    perform set_config('lock_timeout', before_lock, true);
exception when lock_not_available then
    raise exception using errcode = 'OB040', message = 'a transaction that writes events is open for too long',
        hint = 'Changing what an event may be needs a moment without writers. Try again.';
end
$$;
comment on function outbox_relay.guard_event is 'Puts the rules of an acceptable event before outbox.event.';

select outbox_relay.guard_event();
comment on trigger event_acceptable on outbox.event is 'Refuses an event that could not be delivered; an acceptable one queues nothing.';
