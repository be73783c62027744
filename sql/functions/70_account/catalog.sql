create or replace function outbox_relay.catalog()
returns table (type text, description text, version text, schema text, example text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- The event types that are not archived, for the section webhooks of /openapi.json.
select t.type, t.description, t.version, t.schema::text, t.example::text
from outbox.event_type t where t.archived_at is null order by t.type collate "C"
$$;
comment on function outbox_relay.catalog is 'The event types that are not archived.';
