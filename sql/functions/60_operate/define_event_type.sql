create or replace function outbox.define_event_type(
    type text, description text default null, schema jsonb default null, example jsonb default null, version text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Defines or redefines an event type, or brings an archived one back; what is left out stays as it was.
--
-- The first definition makes the trigger that refuses other types. That takes SHARE ROW EXCLUSIVE on
-- outbox.event: it waits for open writers and they for it, so it gives up after two seconds.
declare
    before_lock text;
begin
    perform outbox_relay.require_all_tenants();
    if define_event_type.type !~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' or octet_length(define_event_type.type) > 128 or define_event_type.type is null then
        raise exception using errcode = 'OB001', message = format('event type %s is not acceptable', quote_nullable(left(define_event_type.type, 150))),
            hint = 'Use words of letters, digits, _ and - with dots between them, 128 bytes at most, as order.created.';
    elsif jsonb_typeof(define_event_type.schema) not in ('object', 'boolean') then
        raise exception using errcode = 'OB018', message = 'schema is not a JSON Schema', hint = 'Pass an object, as {"type": "object"}.';
    end if;
    insert into outbox.event_type as t (type, description, schema, example, version)
    values (define_event_type.type, define_event_type.description, define_event_type.schema, define_event_type.example, define_event_type.version)
    on conflict on constraint event_type_pkey do update
    set description = coalesce(excluded.description, t.description), schema = coalesce(excluded.schema, t.schema),
        example = coalesce(excluded.example, t.example), version = coalesce(excluded.version, t.version),
        archived_at = null, updated_at = now();
    if not exists (select from pg_trigger g where g.tgrelid = 'outbox.event'::regclass and g.tgname = 'event_catalog') then
        before_lock := current_setting('lock_timeout');
        perform set_config('lock_timeout', '2s', true);
        begin
            create or replace trigger event_catalog after insert on outbox.event
                referencing new table as inserted for each statement execute function outbox_relay.refuse_type();
            comment on trigger event_catalog on outbox.event is 'The catalog, fail closed: refuses types that are undefined or archived.';
        exception when lock_not_available then
            raise exception using errcode = 'OB040', message = 'a transaction that writes events is open for too long',
                hint = 'The first definition of an event type needs a moment without writers. Try again.';
        end;
        perform set_config('lock_timeout', before_lock, true);
    end if;
    perform outbox_relay.audit('define_event_type', detail => jsonb_build_object('type', define_event_type.type, 'version', define_event_type.version));
end
$$;
comment on function outbox.define_event_type is 'Defines an event type; from the first definition on, undefined types are refused.';
