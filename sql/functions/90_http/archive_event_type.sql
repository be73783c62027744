create or replace function outbox_http.archive_event_type(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform outbox_http.require_unbound(tenant);
    perform outbox.archive_event_type(request ->> 'type');
    return outbox_http.get_event_type(tenant, request);
end
$$;
comment on function outbox_http.archive_event_type is 'DELETE /event-types/{type}';
