create or replace function outbox_http.event_type(t outbox.event_type)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- An entry of the catalog as the API shows it: #/components/schemas/EventType.
select json_build_object('type', t.type, 'description', t.description, 'version', t.version, 'schema', t.schema, 'example', t.example,
    'created_at', t.created_at, 'updated_at', t.updated_at, 'archived_at', t.archived_at)
$$;
comment on function outbox_http.event_type is 'An entry of the catalog as the API shows it.';
