create or replace function outbox_relay.guard_event() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Puts the rules of an acceptable event before outbox.event, with the current limit of the payload.
--
-- AFTER, not BEFORE: a BEFORE ROW trigger would make COPY insert row by row. The condition is evaluated
-- without calling a function of ours, and a row that meets it queues nothing. #> '{}' is the payload
-- itself, unpacked: a value copied from another table may arrive compressed, and would count as less.
-- Called by migrate and when max_payload_bytes changes; takes SHARE ROW EXCLUSIVE on outbox.event.
begin
    execute format($ddl$
        create or replace trigger event_acceptable after insert on outbox.event for each row
        when (not (new.xact = pg_current_xact_id()
            and new.type ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' and octet_length(new.type) <= 128
            and octet_length(new.tenant_id) between 1 and 128 and new.tenant_id !~ '[[:cntrl:]]'
            and pg_column_size(new.payload #> '{}') <= %s
            and new.occurred_at between '0001-01-01 00:00:00+00' and '9999-12-31 00:00:00+00'
            and (new.deliver_at is null or new.deliver_at between '0001-01-01 00:00:00+00' and '9999-12-31 00:00:00+00')
            and (new.ordering_key is null or octet_length(new.ordering_key) <= 255)
            and (new.metadata is null or jsonb_typeof(new.metadata) = 'object')))
        execute function outbox_relay.refuse_event()$ddl$,
        (select value::integer from outbox.setting where name = 'max_payload_bytes'));
end
$$;
comment on function outbox_relay.guard_event is 'Writes the rules of an acceptable event into the trigger on outbox.event.';

select outbox_relay.guard_event();
comment on trigger event_acceptable on outbox.event is 'Refuses an event that could not be delivered; an acceptable one costs no function call.';
