create or replace function outbox.archive_event_type(type text)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- From now on events of this type are refused; those in the log are delivered. define_event_type brings it back.
begin
    perform outbox_relay.require_all_tenants();
    update outbox.event_type t set archived_at = coalesce(t.archived_at, now()), updated_at = now() where t.type = archive_event_type.type;
    if not found then
        raise exception using errcode = 'OB021', message = format('event type %s is not in the catalog', quote_nullable(archive_event_type.type)),
            hint = 'See select type from outbox.event_type.';
    end if;
    perform outbox_relay.audit('archive_event_type', detail => jsonb_build_object('type', archive_event_type.type));
end
$$;
comment on function outbox.archive_event_type is 'Refuses events of this type from now on.';
