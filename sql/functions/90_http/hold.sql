create or replace function outbox_http.hold(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform outbox_http.require_unbound(tenant);
    perform outbox.hold(request #>> '{body,reason}');
    return outbox_http.get_status(tenant, request);
end
$$;
comment on function outbox_http.hold is 'PUT /hold';
