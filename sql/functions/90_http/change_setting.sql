create or replace function outbox_http.change_setting(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform outbox_http.require_unbound(tenant);
    perform outbox.set(request ->> 'name', request #>> '{body,value}');
    return (select outbox_http.setting(s.*::outbox.setting) from outbox.setting s where s.name = request ->> 'name');
end
$$;
comment on function outbox_http.change_setting is 'PUT /settings/{name}';
