create or replace function outbox_http.get_event(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select json_build_object('event_seq', e.event_seq, 'event_id', e.event_id, 'tenant_id', e.tenant_id, 'type', e.type, 'payload', e.payload,
    'occurred_at', e.occurred_at, 'ordering_key', e.ordering_key, 'priority', e.priority,
    'deliver_at', case when isfinite(e.deliver_at) then e.deliver_at end, 'metadata', e.metadata)
from outbox.event e
where e.event_seq = outbox_http.find_event(tenant, (request ->> 'event_id')::uuid)
$$;
comment on function outbox_http.get_event is 'GET /events/{event_id}';
