create or replace function outbox_http.setting(s outbox.setting)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- A setting as the API shows it: #/components/schemas/Setting.
select json_build_object('name', s.name, 'value', s.value, 'kind', s.kind, 'minimum', s.minimum, 'maximum', s.maximum,
    'choices', s.choices, 'description', s.description, 'updated_at', s.updated_at, 'updated_by', s.updated_by)
$$;
comment on function outbox_http.setting is 'A setting as the API shows it.';
