create or replace function outbox_relay.guard_event() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Puts the rules of an acceptable event before outbox.event, with the current limit of the payload.
--
-- AFTER, not BEFORE: a BEFORE ROW trigger would make COPY insert row by row. The condition is evaluated
-- without calling a function of ours, and a row that meets it queues nothing. #> '{}' is the payload
-- itself, unpacked: a value copied from another table may arrive compressed, and would count as less. The bounds
-- of occurred_at are what RFC 3339 and the relay's clock can say, infinity is beyond them; written out with their
-- zone they are constants, while a function of occurred_at would be called for every row.
--
-- Each statement reads its triggers' conditions anew from the catalog, so every clause costs and only what
-- would harm a delivery stands here. With fifteen clauses an insert took 1.3 to 2 times the CPU of one
-- without (a noisy machine; a profile of today's six shows 13 % of the backend's time in this trigger).
-- outbox.publish, which is a function anyway, checks the rest.
-- Called by migrate and when max_payload_bytes changes; takes SHARE ROW EXCLUSIVE on outbox.event
-- until the caller commits, and gives up after two seconds of waiting for it.
declare
    before_lock text := current_setting('lock_timeout');
begin
    perform set_config('lock_timeout', '2s', true);
    execute format($ddl$
        create or replace trigger event_acceptable after insert on outbox.event for each row
        when (new.type !~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' or new.tenant_id = ''
            or octet_length(new.type || new.tenant_id) > 256 or pg_column_size(new.payload #> '{}') > %s
            or new.occurred_at not between '0001-01-01 00:00:00+00' and '9999-12-30 22:00:00+00' or new.xact <> pg_current_xact_id())
        execute function outbox_relay.refuse_event()$ddl$,
        (select value::integer from outbox.setting where name = 'max_payload_bytes'));
    perform set_config('lock_timeout', before_lock, true);
exception when lock_not_available then
    raise exception using errcode = 'OB040', message = 'a transaction that writes events is open for too long',
        hint = 'Changing what an event may be needs a moment without writers. Try again.';
end
$$;
comment on function outbox_relay.guard_event is 'Writes the rules of an acceptable event into the trigger on outbox.event.';

select outbox_relay.guard_event();
comment on trigger event_acceptable on outbox.event is 'Refuses an event that could not be delivered; an acceptable one costs no function call.';
