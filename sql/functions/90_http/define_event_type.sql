create or replace function outbox_http.define_event_type(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform outbox_http.require_unbound(tenant);
    perform outbox.define_event_type(request ->> 'type', description => request #>> '{body,description}',
        schema => nullif(request #> '{body,schema}', 'null'), example => request #> '{body,example}', version => request #>> '{body,version}');
    return outbox_http.get_event_type(tenant, request);
end
$$;
comment on function outbox_http.define_event_type is 'PUT /event-types/{type}';
