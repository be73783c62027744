create or replace function outbox_http.explain_event(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    id  uuid := (request ->> 'event_id')::uuid;
    seq bigint := outbox_http.find_event(tenant, id);
begin
    return json_build_object('event_id', id, 'data', (
        select coalesce(json_agg(json_build_object('subscription_id', x.subscription_id, 'name', x.name, 'verdict', x.verdict, 'detail', x.detail,
            'attempts', x.attempts, 'next_attempt_at', case when isfinite(x.next_attempt_at) then x.next_attempt_at end,
            'delivery_id', case when x.verdict in ('pending', 'leased', 'failed', 'succeeded', 'dead_letter', 'cancelled')
                then x.subscription_id || '-' || seq end) order by x.subscription_id), '[]')
        from outbox.explain(id, tenant_id => tenant) x));
end
$$;
comment on function outbox_http.explain_event is 'GET /events/{event_id}/explain';
