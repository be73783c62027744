create or replace function outbox_http.publish_event(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Here the header Idempotency-Key is that of outbox.publish: it is the tenant's, whichever token is used.
declare
    b jsonb := request -> 'body';
begin
    return json_build_object('event_id', outbox.publish(b ->> 'type', b -> 'payload',
        tenant_id => coalesce(outbox_http.tenant_of(tenant, b ->> 'tenant_id'), 'default'), event_id => (b ->> 'event_id')::uuid,
        ordering_key => b ->> 'ordering_key', occurred_at => (b ->> 'occurred_at')::timestamptz, deliver_at => (b ->> 'deliver_at')::timestamptz,
        priority => coalesce((b ->> 'priority')::smallint, 0::smallint), metadata => nullif(b -> 'metadata', 'null'),
        idempotency_key => request ->> 'Idempotency-Key'));
end
$$;
comment on function outbox_http.publish_event is 'POST /events';
