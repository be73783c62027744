create or replace function outbox_http.list_settings(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select json_build_object('data', json_agg(outbox_http.setting(s.*::outbox.setting) order by s.name)) from outbox.setting s
$$;
comment on function outbox_http.list_settings is 'GET /settings';
