create or replace function outbox_relay.refuse_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Says what is wrong with an event that the trigger's condition, outbox_relay.is_unacceptable, is true of.
--
-- The limit of the payload is written into the trigger by outbox_relay.guard_event().
-- Security definer because a producer may not read the settings that a message quotes.
begin
    if new.xact <> pg_current_xact_id() then
        raise exception using errcode = 'OB005', message = 'event.xact was given',
            hint = 'Leave xact out of the insert: its default tells the relay which transaction wrote the row.';
    elsif new.type !~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$' or octet_length(new.type) > 255 then
        raise exception using errcode = 'OB001',
            message = format('event type %s is not acceptable', quote_literal(left(new.type, 150))),
            hint = 'Use words of letters, digits, _ and - with dots between them, as order.created; 256 bytes with the tenant.';
    elsif new.tenant_id = '' or octet_length(new.type || new.tenant_id) > 256 then
        raise exception using errcode = 'OB002', message = 'tenant_id is empty, or longer than 256 bytes together with the type',
            hint = 'Use a short identifier of the tenant, or leave it out for ''default''.';
    elsif new.occurred_at not between '0001-01-01 00:00:00+00' and '9999-12-30 22:00:00+00' then
        raise exception using errcode = 'OB005', message = 'occurred_at is infinite, before the year 1, or after 9999-12-30 22:00 UTC',
            hint = 'RFC 3339, which receivers read, writes the years 1 to 9999; leave occurred_at out for now().';
    else
        raise exception using errcode = 'OB003',
            message = format('payload of %s bytes is over the limit of %s (setting max_payload_bytes)', pg_column_size(new.payload #> '{}'),
                (select value from outbox.setting where name = 'max_payload_bytes')),
            hint = 'Send a reference to large content, or raise the limit: select outbox.set(''max_payload_bytes'', ''…'').';
    end if;
end
$$;
comment on function outbox_relay.refuse_event is 'Trigger: names what is wrong with an event and what to do.';
